/* Four callers at one circuit breaker: every interleaving of admission and settlement.
 *
 * One atomic step stands for what the driver does while it holds its lock, or for the one attribute that it
 * reads without. Between the steps of one caller the others go on as they please, the recovery time may or
 * may not be over, and any lease may run out.
 *
 * What is asserted:
 *   1. at most PROBES places are taken in a half-open generation;
 *   2. it closes only by PROBES successes that were admitted in that very generation;
 *   3. it opens only by failures that were admitted in the generation which they end;
 *   4. half-open never waits for nobody: a place is free, or taken by somebody whose lease will end.
 *
 * With -DNO_GENERATION outcomes are judged by the state that they come back to, and with -DNO_ATOMIC_ADMIT
 * the look for a free place and its taking are two steps. Either has a counterexample.
 */

#define CALLERS   4
#define CALLS     7   /* that they make altogether */
#define PROBES    2
#define THRESHOLD 2   /* failures in a row */

#ifdef NO_GENERATION
#define CURRENT true
#define HOLDS   true
#else
#define CURRENT (mine == generation)
#define HOLDS   holds[me]
#endif

mtype = { CLOSED, OPEN, HALF_OPEN };

mtype mode = CLOSED;
byte generation = 1;
byte failures = 0;
byte successes = 0;
byte calls = 0;
byte taken = 0;         /* places */
bool holds[CALLERS];    /* who holds one of them */

byte proved = 0;        /* successes of this generation: only watched, never used */
byte broke = 0;         /* failures of this generation: only watched, never used */

inline begin(next) {
    mode = next;
    generation++;
    failures = 0; successes = 0; taken = 0; proved = 0; broke = 0;
    holds[0] = false; holds[1] = false; holds[2] = false; holds[3] = false
}

inline way_on() {
    assert(mode != HALF_OPEN || taken > 0 || successes < PROBES)
}

inline admit() {
    admitted = false;
    atomic {
        if
        :: mode == OPEN -> begin(HALF_OPEN)     /* the recovery time is over */
        :: true                                 /* it is not, or was not open */
        fi;
        if
        :: mode == CLOSED -> mine = generation; admitted = true
        :: mode == HALF_OPEN && taken + successes < PROBES ->
#ifdef NO_ATOMIC_ADMIT
            looked = true
#else
            taken++; holds[me] = true; mine = generation; admitted = true;
            assert(taken <= PROBES)
#endif
        :: else -> skip
        fi
    }
#ifdef NO_ATOMIC_ADMIT
    atomic {
        if
        :: looked && mode == HALF_OPEN ->
            taken++; holds[me] = true; mine = generation; admitted = true;
            assert(taken <= PROBES)
        :: else -> skip
        fi;
        looked = false
    }
#endif
}

inline succeed() {
    if
    :: CURRENT && mode == CLOSED -> failures = 0; broke = 0
    :: CURRENT && mode == HALF_OPEN && HOLDS ->
        holds[me] = false; taken = (taken > 0 -> taken - 1 : 0);
        successes++;
        if
        :: mine == generation -> proved++
        :: else -> skip
        fi;
        if
        :: successes >= PROBES -> assert(proved == PROBES); begin(CLOSED)
        :: else -> skip
        fi;
        way_on()
    :: else -> skip                             /* late: it changes nothing */
    fi
}

inline fail() {
    if
    :: CURRENT && mode == CLOSED ->
        failures++;
        if
        :: mine == generation -> broke++
        :: else -> skip
        fi;
        if
        :: failures >= THRESHOLD -> assert(broke == THRESHOLD); begin(OPEN)
        :: else -> skip
        fi
    :: CURRENT && mode == HALF_OPEN && HOLDS ->
        assert(mine == generation);
        begin(OPEN)
    :: else -> skip                             /* late: it changes nothing */
    fi
}

inline give_back() {
    if
    :: CURRENT && mode == HALF_OPEN && HOLDS ->
        holds[me] = false; taken = (taken > 0 -> taken - 1 : 0);
        way_on()
    :: else -> skip
    fi
}

active [CALLERS] proctype caller() {
    byte me = _pid;
    byte mine = 0;
    bool admitted = false;
#ifdef NO_ATOMIC_ADMIT
    bool looked = false;
#endif
    do
    :: atomic { calls < CALLS -> calls++ };
        admit();
        if
        :: admitted ->
            if
            :: true -> atomic { succeed() }
            :: true -> atomic { fail() }
            :: true -> atomic { give_back() }   /* cancelled, ignored, lost */
            :: true -> break                    /* hangs for ever */
            fi
        :: else -> skip
        fi;
        mine = 0
    :: calls == CALLS -> break
    od
}

active proctype leases() {
    byte who;
end:
    do
    :: atomic {
            mode == HALF_OPEN && taken > 0 ->
            if
            :: holds[0] -> who = 0
            :: holds[1] -> who = 1
            :: holds[2] -> who = 2
            :: holds[3] -> who = 3
            :: else -> who = CALLERS
            fi;
            if
            :: who < CALLERS -> holds[who] = false; taken--
            :: else -> taken = 0
            fi;
            way_on()
        }
    od
}
