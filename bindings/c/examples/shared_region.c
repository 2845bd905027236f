/* A region of shared memory, as an engine's KV cache often is: registered once, it is read and
 * written without a copy, by region and offset instead of addresses.
 *
 *   cc shared_region.c $(pkg-config --cflags --libs hearth) && ./a.out dir:/mnt/nvme/cache
 */
#define _GNU_SOURCE
#include <hearth.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 65536, PAGES = 64 };

static void check(int64_t result, const char *what) {
    if (result >= 0) return;
    fprintf(stderr, "%s: %s: %s\n", what, hearth_error_name((int32_t)result),
            hearth_error_message());
    exit(1);
}

/* Puts pages of the region, or gets them back into others. */
static int move_pages(hearth_queue queue, hearth_namespace space, hearth_region region,
                      uint8_t kind, int first_page) {
    struct {
        hearth_piece pieces[PAGES / 2];
        uint64_t keys[PAGES / 2];
    } data;
    hearth_operation operations[PAGES / 2];
    hearth_completion ends[PAGES / 2];
    int right = 0, ended = 0;
    memset(&data, 0, sizeof data);
    memset(operations, 0, sizeof operations);
    for (int i = 0; i < PAGES / 2; i++) {
        data.keys[i] = 0x9e3779b97f4a7c15u * (uint64_t)(i + 1); /* an engine's block hash */
        data.pieces[i].region = region;
        data.pieces[i].offset = (uint64_t)(first_page + i) * PAGE;
        data.pieces[i].length = PAGE;
        operations[i].tag = (uint64_t)i;
        operations[i].space = space;
        operations[i].kind = kind;
        operations[i].durability = kind == HEARTH_PUT ? HEARTH_WRITTEN : 0;
        operations[i].key.offset = (uint32_t)((char *)&data.keys[i] - (char *)&data);
        operations[i].key.length = sizeof data.keys[i];
        operations[i].pieces = (uint32_t)((char *)&data.pieces[i] - (char *)&data);
        operations[i].piece_count = 1;
        if (kind == HEARTH_PUT && i > 0) operations[i].parent = operations[i - 1].key;
    }
    check(hearth_submit(queue, operations, PAGES / 2, &data, sizeof data), "hearth_submit");
    while (ended < PAGES / 2) {
        int64_t count = hearth_poll(queue, ends, PAGES / 2, UINT64_MAX);
        check(count, "hearth_poll");
        for (int64_t i = 0; i < count; i++) {
            right += ends[i].status == (kind == HEARTH_PUT ? HEARTH_STORED : HEARTH_HIT);
        }
        ended += (int)count;
    }
    return right;
}

int main(int count, char **words) {
    const char *options[] = {"capacity=1GiB", "memory=256M", "max_block=1M", "segment=16M",
                             "staging=0", NULL};
    hearth_field field = {"model", "example"};
    hearth_store store;
    hearth_namespace space;
    hearth_queue queue;
    hearth_region region;
    size_t bytes = (size_t)PAGES * PAGE;
    if (count != 2) {
        fprintf(stderr, "usage: shared_region dir:/path\n");
        return 2;
    }
    int memory = memfd_create("kv-cache", MFD_CLOEXEC);
    if (memory < 0 || ftruncate(memory, (off_t)bytes) != 0) return 1;
    char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (pages == MAP_FAILED) return 1;
    for (size_t i = 0; i < bytes / 2; i++) pages[i] = (char)(i / 5 * 29);

    check(hearth_open(words[1], options, &store), "hearth_open");
    check(hearth_namespace_open(store, &field, 1, HEARTH_PACKED, 0, 0, &space), "namespace");
    check(hearth_queue_open(store, PAGES, NULL, NULL, &queue), "hearth_queue_open");
    check(hearth_register(store, pages, bytes, memory, &region), "hearth_register");
    int stored = move_pages(queue, space, region, HEARTH_PUT, 0);
    int hits = move_pages(queue, space, region, HEARTH_GET, PAGES / 2);
    int same = memcmp(pages, pages + bytes / 2, bytes / 2) == 0;
    printf("%d stored, %d hits, %s\n", stored, hits, same ? "the same bytes" : "OTHER bytes");
    check(hearth_unregister(store, region), "hearth_unregister");
    check(hearth_close(store), "hearth_close");
    munmap(pages, bytes);
    close(memory);
    return stored == PAGES / 2 && hits == PAGES / 2 && same ? 0 : 1;
}
