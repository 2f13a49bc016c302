/* stop.h - `tidegate-proxy --stop`: ends the proxy that holds a run dir, as its kubelet's preStop or a person asks
 * Shape:   the delay (it serves on meanwhile: its endpoint leaves the Service) -> TERM -> wait until it is gone
 *          (or about to go: process 1 of a container gives its lock up first, see rundir_give_up)
 * Units:   the delay in milliseconds of CLOCK_MONOTONIC
 * Owner:   nothing outlives the call
 * Errors:  exit codes: 0 it is gone, or nobody was there (said on stderr); 1 it cannot be ended, and why; 2 is usage
 * Limits:  waits as long as the other one drains, which has limits of its own; TERM ends this one at any time
 * Threads: the main thread of a process that does nothing else
 * Source:  pidfd_open(2): the process is held by descriptor and asked for again, so no other that got its number is hit */
#ifndef PROXY_RUN_STOP_H
#define PROXY_RUN_STOP_H

#include "run/options.h"

int stop_main(const struct options *o);

#endif
