/* What the programs that test the C interface share: checks that count, a store in a new directory,
 * and batches built by hand. Valid as C and as C++. Each program prints "N passed, M failed". */
#ifndef HARNESS_H
#define HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <hearth.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Not every program uses everything. */
#define UNUSED __attribute__((unused))

#ifdef __cplusplus
#define THREAD_LOCAL thread_local
#else
#define THREAD_LOCAL _Thread_local
#endif

static int passed, failed;

UNUSED static void check(int holds, const char *what, const char *file, int line) {
    if (holds) {
        passed++;
        return;
    }
    failed++;
    fprintf(stderr, "%s:%d: %s\n    last message: %s\n", file, line, what, hearth_error_message());
}
#define CHECK(what) check((what) ? 1 : 0, #what, __FILE__, __LINE__)

/* A refusal: the code, and words that the message holds. */
UNUSED static void check_refused(int64_t result, int64_t code, const char *words, const char *what,
                          const char *file, int line) {
    if (result == code && strstr(hearth_error_message(), words)) {
        passed++;
        return;
    }
    failed++;
    fprintf(stderr, "%s:%d: %s\n    is %lld, not %s; message: %s; not in it: %s\n", file, line,
            what, (long long)result, hearth_error_name((int32_t)code), hearth_error_message(),
            words);
}
#define REFUSED(call, code, words) check_refused((call), (code), (words), #call, __FILE__, __LINE__)

UNUSED static void must(int64_t result, const char *what, const char *file, int line) {
    if (result >= 0) return;
    fprintf(stderr, "%s:%d: %s: %s: %s\n", file, line, what, hearth_error_name((int32_t)result),
            hearth_error_message());
    exit(1);
}
#define MUST(call) must((call), #call, __FILE__, __LINE__)

#define SECOND 1000000000ull

UNUSED static const char *const small_store[] = {
    "capacity=512M", "segment=4M", "max_block=256K", "memory=128M", "staging=32M",
    "index_entries=65536", NULL};

static char endpoint_text[4096];

/* "dir:" and a new directory below the one given on the command line. */
UNUSED static const char *new_endpoint(const char *below, const char *name) {
    snprintf(endpoint_text, sizeof endpoint_text, "dir:%s/%s.%d", below, name, (int)getpid());
    return endpoint_text;
}

UNUSED static hearth_namespace open_space(hearth_store store, const char *model) {
    hearth_field fields[2];
    hearth_namespace space = 0;
    fields[0].name = "model";
    fields[0].value = model;
    fields[1].name = "dtype";
    fields[1].value = "bf16";
    MUST(hearth_namespace_open(store, fields, 2, HEARTH_PACKED, 0, 0, &space));
    return space;
}

/* A batch of up to 64 operations; each key in 512 bytes of its own, one piece each. */
enum { BATCH = 64, KEY_ROOM = 520 };
typedef struct batch_data {
    hearth_piece pieces[BATCH];
    uint32_t lengths[BATCH];
    char keys[BATCH][KEY_ROOM];
} batch_data;
typedef struct batch {
    hearth_operation operations[BATCH];
    batch_data data;
    uint32_t count;
} batch;

UNUSED static void clear(batch *b) { memset(b, 0, sizeof *b); }

UNUSED static hearth_operation *add(batch *b, hearth_namespace space, uint8_t kind, const char *key,
                             void *memory, uint64_t length) {
    uint32_t number = b->count++;
    hearth_operation *operation = &b->operations[number];
    size_t bytes = strlen(key);
    memset(operation, 0, sizeof *operation);
    memcpy(b->data.keys[number], key, bytes);
    operation->tag = number;
    operation->space = space;
    operation->kind = kind;
    operation->key.offset =
        (uint32_t)(offsetof(batch_data, keys) + (size_t)number * KEY_ROOM);
    operation->key.length = (uint32_t)bytes;
    if (memory) {
        b->data.pieces[number].offset = (uint64_t)(uintptr_t)memory;
        b->data.pieces[number].length = length;
        b->data.pieces[number].region = 0;
        b->data.pieces[number].reserved = 0;
        operation->pieces = (uint32_t)(number * sizeof(hearth_piece));
        operation->piece_count = 1;
    }
    return operation;
}

UNUSED static int64_t submit(hearth_queue queue, batch *b) {
    return hearth_submit(queue, b->operations, b->count, &b->data, sizeof b->data);
}

/* Waits for so many completions; those by tag land in `by_tag`, if there is one. */
UNUSED static int collect(hearth_queue queue, uint32_t count, hearth_completion *by_tag) {
    hearth_completion room[BATCH];
    uint32_t got = 0;
    while (got < count) {
        int64_t part = hearth_poll(queue, room, BATCH, 10 * SECOND);
        if (part <= 0) return 0;
        for (int64_t i = 0; i < part; i++) {
            if (by_tag && room[i].tag < BATCH) by_tag[room[i].tag] = room[i];
        }
        got += (uint32_t)part;
    }
    return got == count;
}

/* One operation and its end. */
UNUSED static hearth_completion run(hearth_queue queue, hearth_namespace space, uint8_t kind,
                                    uint8_t mode, const char *key, void *memory,
                                    uint64_t length) {
    static THREAD_LOCAL batch b;
    hearth_completion end;
    memset(&end, 0, sizeof end);
    end.status = 255;
    clear(&b);
    hearth_operation *operation = add(&b, space, kind, key, memory, length);
    operation->mode = mode;
    if (kind == HEARTH_PUT) operation->durability = HEARTH_WRITTEN;
    if (submit(queue, &b) != 1) return end;
    if (hearth_poll(queue, &end, 1, 10 * SECOND) != 1) end.status = 255;
    return end;
}

UNUSED static void fill(char *memory, size_t length, unsigned seed) {
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < length; i++) {
        state = state * 1664525u + 1013904223u;
        memory[i] = (char)(state >> 24);
    }
}

UNUSED static int finish(const char *program) {
    printf("%s: %d passed, %d failed\n", program, passed, failed);
    return failed ? 1 : 0;
}

#endif
