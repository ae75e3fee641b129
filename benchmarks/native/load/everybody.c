/* Everybody there is, and what all of them together have got so far. */
#include "load.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Who has got what, where somebody wants to know: update number n is counted at n % APART. */
struct room {
    int members, got[APART];
};

struct member *members;
size_t count, joined, done;
int poller, receipts = -1;
int64_t began, deliveries, first_sent, last_receipt, last_progress;
struct histogram delays, pings, joins;

static struct room *rooms;
static int room_count;

void add_to_room(int room) {
    if (room >= room_count) {
        rooms = realloc(rooms, (room + 1) * sizeof *rooms);
        memset(rooms + room_count, 0, (room + 1 - room_count) * sizeof *rooms);
        room_count = room + 1;
    }
    rooms[room].members++;
}

void count_receipt(int room, int64_t seq) {
    int *got = &rooms[room].got[seq % APART];
    if (++*got < rooms[room].members) return;
    *got = 0;
    if (write(receipts, "", 1) != 1) fail("cannot say what has arrived: %s", strerror(errno));
}
