/* Puts one block and gets it back: the smallest program that uses Hearth.
 *
 *   cc put_get.c $(pkg-config --cflags --libs hearth) -o put_get && ./put_get dir:/mnt/nvme/cache
 */
#include <hearth.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int64_t result, const char *what) {
    if (result >= 0) return;
    fprintf(stderr, "%s: %s: %s\n", what, hearth_error_name((int32_t)result),
            hearth_error_message());
    exit(1);
}

/* One operation on one block in this process's memory; waits for its end. */
static hearth_completion run(hearth_queue queue, hearth_namespace space, uint8_t kind,
                             const char *key, void *memory, uint64_t length) {
    /* What goes with a batch: here one piece, then the key. */
    struct {
        hearth_piece piece;
        char key[32];
    } data;
    hearth_operation operation;
    hearth_completion end;
    memset(&data, 0, sizeof data);
    memset(&operation, 0, sizeof operation);
    data.piece.offset = (uint64_t)(uintptr_t)memory;
    data.piece.length = length;
    strncpy(data.key, key, sizeof data.key - 1);
    operation.space = space;
    operation.kind = kind;
    if (kind == HEARTH_PUT) operation.durability = HEARTH_DURABLE;
    operation.key.offset = (uint32_t)((char *)data.key - (char *)&data);
    operation.key.length = (uint32_t)strlen(data.key);
    operation.pieces = 0;
    operation.piece_count = 1;
    check(hearth_submit(queue, &operation, 1, &data, sizeof data), "hearth_submit");
    check(hearth_poll(queue, &end, 1, UINT64_MAX), "hearth_poll");
    return end;
}

int main(int count, char **words) {
    const char *options[] = {"capacity=1GiB", "memory=256M", "max_block=1M", "segment=16M", NULL};
    hearth_field fields[] = {{"model", "example"}, {"dtype", "bf16"}};
    hearth_store store;
    hearth_namespace space;
    hearth_queue queue;
    static char block[100000], copy[100000];
    if (count != 2) {
        fprintf(stderr, "usage: put_get dir:/path\n");
        return 2;
    }
    check(hearth_open(words[1], options, &store), "hearth_open");
    check(hearth_namespace_open(store, fields, 2, HEARTH_PACKED, 0, 0, &space), "namespace");
    check(hearth_queue_open(store, 64, NULL, NULL, &queue), "hearth_queue_open");

    memset(block, 'k', sizeof block);
    hearth_completion put = run(queue, space, HEARTH_PUT, "block-1", block, sizeof block);
    printf("put: %s, version %llu\n", hearth_status_name(put.status),
           (unsigned long long)put.version);
    hearth_completion get = run(queue, space, HEARTH_GET, "block-1", copy, sizeof copy);
    int same = get.status == HEARTH_HIT && get.delivered == sizeof block &&
               memcmp(block, copy, sizeof block) == 0;
    printf("get: %s, %llu bytes, %s\n", hearth_status_name(get.status),
           (unsigned long long)get.delivered, same ? "the same" : "NOT the same");
    hearth_completion miss = run(queue, space, HEARTH_GET, "block-2", copy, sizeof copy);
    printf("get: %s, %s\n", hearth_status_name(miss.status), hearth_reason_name(miss.reason));
    check(hearth_close(store), "hearth_close");
    return same && miss.status == HEARTH_MISS ? 0 : 1;
}
