/* Updates that somebody else publishes to the probe's room: a process of its own, or connections that post.
 *
 * Who publishes over several connections at a time has an order on each alone, so numbers come in lanes: number n of lane l
 * is n + (l << 32). What is missing in between is counted, as a publisher may be allowed to drop what it cannot send.
 */
#include "load.h"
#include <stdio.h>
#include <string.h>

static int64_t next[LANES], missing, expected;

void begin_listening(void) {
    memset(next, 0, sizeof next);
    missing = 0;
    expected = -1;
}

void expect(int64_t updates) { expected = updates; }

void hear_published(struct member *m, int64_t seq, int64_t sent, int64_t received) {
    int64_t lane = seq >> 32, number = seq & 0xffffffff;
    if (lane >= LANES || number < next[lane]) {
        fail("session %zu: update %" PRId64 " of connection %" PRId64 " came again or too late", m - members, number, lane);
        return;
    }
    missing += number - next[lane];
    next[lane] = number + 1;
    if (!deliveries++ || sent < first_sent) first_sent = sent;
    last_receipt = last_progress = received;
    note(&delays, received - sent);
}

bool heard_all(void) { return expected >= 0 && deliveries >= expected; }

void print_heard(void) { printf("\"missing\": %" PRId64, missing); }
