// The process's heap: what is beside the arenas, for requests, texts and messages. Left to itself
// glibc makes an arena of up to 64 MiB for every thread that asks at a busy moment, 8 for each core
// in all, and keeps in every one what it once needed: a job whose requests come from many threads
// grows for as long as it meets new ones.
#pragma once

namespace spillway {

// Two arenas for all threads, and large blocks go back to the system when they are freed. Nothing
// that a token waits for allocates, so threads may wait for each other here. Before any thread.
void bound_heap();

}  // namespace spillway
