/* A queue in an event loop: its descriptor is polled like any other, and batches of operations go
 * in while completions come out.
 *
 *   cc queue_eventfd.c $(pkg-config --cflags --libs hearth) && ./a.out dir:/mnt/nvme/cache
 */
#include <hearth.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 1000, BLOCK = 16384, BATCH = 50 };

static void check(int64_t result, const char *what) {
    if (result >= 0) return;
    fprintf(stderr, "%s: %s: %s\n", what, hearth_error_name((int32_t)result),
            hearth_error_message());
    exit(1);
}

/* A batch's data, in the order in which its offsets name it. */
typedef struct message {
    hearth_piece pieces[BATCH];
    char keys[BATCH][16];
} message;

/* Submits operations of one kind on blocks `first` to `first + count - 1`. */
static int64_t submit(hearth_queue queue, hearth_namespace space, uint8_t kind, char *memory,
                      int first, int count) {
    static message data;
    static hearth_operation operations[BATCH];
    memset(&data, 0, sizeof data);
    memset(operations, 0, sizeof operations);
    for (int i = 0; i < count; i++) {
        hearth_operation *operation = &operations[i];
        snprintf(data.keys[i], sizeof data.keys[i], "block %d", first + i);
        data.pieces[i].offset = (uint64_t)(uintptr_t)(memory + (size_t)(first + i) * BLOCK);
        data.pieces[i].length = BLOCK;
        operation->tag = (uint64_t)(first + i);
        operation->space = space;
        operation->kind = kind;
        operation->durability = kind == HEARTH_PUT ? HEARTH_WRITTEN : 0;
        operation->key.offset = (uint32_t)(data.keys[i] - (char *)&data);
        operation->key.length = (uint32_t)strlen(data.keys[i]);
        operation->pieces = (uint32_t)(sizeof(hearth_piece) * (size_t)i);
        operation->piece_count = 1;
    }
    return hearth_submit(queue, operations, (uint32_t)count, &data, sizeof data);
}

/* Runs one kind over all blocks; returns how many ended as wanted. */
static int run(hearth_queue queue, hearth_namespace space, uint8_t kind, uint8_t wanted,
               char *memory) {
    int sent = 0, ended = 0, right = 0;
    struct pollfd waits = {hearth_event_fd(queue), POLLIN, 0};
    check(waits.fd, "hearth_event_fd");
    while (ended < BLOCKS) {
        /* As many as the queue takes; it says how many that were. */
        while (sent < BLOCKS) {
            int count = BLOCKS - sent < BATCH ? BLOCKS - sent : BATCH;
            int64_t taken = submit(queue, space, kind, memory, sent, count);
            check(taken, "hearth_submit");
            sent += (int)taken;
            if (taken < count) break;
        }
        poll(&waits, 1, -1);
        hearth_completion ends[BATCH];
        int64_t count = hearth_poll(queue, ends, BATCH, 0);
        check(count, "hearth_poll");
        for (int64_t i = 0; i < count; i++) right += ends[i].status == wanted;
        ended += (int)count;
    }
    return right;
}

int main(int count, char **words) {
    const char *options[] = {"capacity=1GiB", "memory=256M", "max_block=1M", "segment=16M", NULL};
    hearth_field field = {"model", "example"};
    hearth_store store;
    hearth_namespace space;
    hearth_queue queue;
    if (count != 2) {
        fprintf(stderr, "usage: queue_eventfd dir:/path\n");
        return 2;
    }
    char *in = malloc((size_t)BLOCKS * BLOCK), *out = calloc(BLOCKS, BLOCK);
    if (!in || !out) return 1;
    for (size_t i = 0; i < (size_t)BLOCKS * BLOCK; i++) in[i] = (char)(i / 7 * 31);
    check(hearth_open(words[1], options, &store), "hearth_open");
    check(hearth_namespace_open(store, &field, 1, HEARTH_PACKED, 0, 0, &space), "namespace");
    check(hearth_queue_open(store, 128, NULL, NULL, &queue), "hearth_queue_open");
    int stored = run(queue, space, HEARTH_PUT, HEARTH_STORED, in);
    int hits = run(queue, space, HEARTH_GET, HEARTH_HIT, out);
    int same = memcmp(in, out, (size_t)BLOCKS * BLOCK) == 0;
    printf("%d stored, %d hits, %s\n", stored, hits, same ? "the same bytes" : "OTHER bytes");
    check(hearth_close(store), "hearth_close");
    free(in);
    free(out);
    return stored == BLOCKS && hits == BLOCKS && same ? 0 : 1;
}
