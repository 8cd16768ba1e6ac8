"""What the library costs, beside floors written by hand and the peers that people use."""
