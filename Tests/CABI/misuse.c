/* Every misuse is an error that is named, and the store goes on. */
#include "harness.h"

static const char *where;

static void opening(void) {
    hearth_store store = 77;
    const char *options[] = {"capacity=64M", NULL, NULL};
    REFUSED(hearth_open(NULL, NULL, &store), HEARTH_E_ARGUMENT, "endpoint is NULL");
    CHECK(store == 0);
    REFUSED(hearth_open("dir:/tmp/x", options, NULL), HEARTH_E_ARGUMENT, "store is NULL");
    REFUSED(hearth_open("/tmp/x", options, &store), HEARTH_E_ARGUMENT, "give dir:/path");
    REFUSED(hearth_open("unix:/tmp/x", options, &store), HEARTH_E_UNSUPPORTED, "dir:/path");
    REFUSED(hearth_open("dir:", options, &store), HEARTH_E_ARGUMENT, "directories[0]");
    REFUSED(hearth_open("dir:/tmp/x,", options, &store), HEARTH_E_ARGUMENT, "directories[1]");
    REFUSED(hearth_open("dir:/tmp/\xff", options, &store), HEARTH_E_ARGUMENT, "UTF-8");
    REFUSED(hearth_open("dir:/proc/nowhere/x", small_store, &store), HEARTH_E_IO, "/proc");
    REFUSED(hearth_open("dir:/tmp/x", NULL, &store), HEARTH_E_ARGUMENT, "capacity or value_bytes");
    struct {
        const char *option, *words;
    } wrong[] = {
        {"capacity", "name=value"},          {"capacity=", "capacity="},
        {"capacity=-1", "capacity=-1"},      {"capacity=99999999999999999999", "capacity="},
        {"capacity=20000P", "64 bits"},      {"capacity=1X", "10GiB"},
        {"capacity=5", "capacityBytes"},     {"colour=red", "no option 'colour'"},
        {"mode=both", "cache or store"},     {"driver=automatic", "auto or io_uring or threads"},
        {"slab=5000", "slabBytes"},          {"memory=1M", "memoryLimitBytes"},
        {"allow_absent=yes", "0 or 1"},      {"queue_depth=0", "queueDepth"},
        {"max_block=1T", "maximumBlockBytes"}, {"staging=9999999T", "stagingBytes"},
        {"index_entries=1P", "indexEntries"}, {"open=loud", "quiet or strict or fresh"},
        {"capacity=64M=3", "10GiB"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *list[] = {NULL, NULL, NULL};
        list[0] = wrong[i].option;
        if (strncmp(wrong[i].option, "capacity", 8)) list[1] = "capacity=512M";
        REFUSED(hearth_open("dir:/tmp/hearth-never-made", list, &store), HEARTH_E_ARGUMENT,
                wrong[i].words);
    }
    const char *twice[] = {"capacity=1G", "capacity=1G", NULL};
    REFUSED(hearth_open("dir:/tmp/x", twice, &store), HEARTH_E_ARGUMENT, "twice");
    const char *both[] = {"capacity=1G", "value_bytes=1G", NULL};
    REFUSED(hearth_open("dir:/tmp/x", both, &store), HEARTH_E_ARGUMENT, "give one");
    const char *huge[] = {"value_bytes=16000P", NULL};
    REFUSED(hearth_open("dir:/tmp/x", huge, &store), HEARTH_E_ARGUMENT, "value_bytes");
    const char *odd[] = {"value_bytes=1G", "expected_block=0", NULL};
    REFUSED(hearth_open("dir:/tmp/x", odd, &store), HEARTH_E_ARGUMENT, "expectedBlockBytes");
    const char *segments[] = {"value_bytes=1G", "clean_segments=99999999999", NULL};
    REFUSED(hearth_open("dir:/tmp/x", segments, &store), HEARTH_E_ARGUMENT, "cleanSegments");
    CHECK(access("/tmp/hearth-never-made", F_OK) != 0);
}

static void handles(hearth_store store, hearth_namespace space, hearth_queue queue) {
    uint64_t wrong[] = {0, 1, store + 1, store ^ (1ull << 24), store ^ (1ull << 60), UINT64_MAX,
                        space, queue};
    hearth_completion end;
    hearth_region region;
    uint64_t value;
    hearth_queue made;
    hearth_namespace other;
    hearth_field field = {"a", "b"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint64_t w = wrong[i];
        CHECK(hearth_close(w) == HEARTH_E_HANDLE);
        CHECK(hearth_flush(w, 0) == HEARTH_E_HANDLE);
        CHECK(hearth_wait_recovered(w) == HEARTH_E_HANDLE);
        CHECK(hearth_checkpoint(w) == HEARTH_E_HANDLE);
        CHECK(hearth_durable_version(w, &value) == HEARTH_E_HANDLE);
        CHECK(hearth_statistics(w, HEARTH_JSON, NULL, 0) == HEARTH_E_HANDLE);
        CHECK(hearth_namespace_open(w, &field, 1, 0, 0, 0, &other) == HEARTH_E_HANDLE);
        CHECK(hearth_register(w, &end, sizeof end, -1, &region) == HEARTH_E_HANDLE);
        CHECK(hearth_unregister(w, 1) == HEARTH_E_HANDLE);
        CHECK(hearth_queue_open(w, 1, NULL, NULL, &made) == HEARTH_E_HANDLE);
        CHECK(hearth_lease_end(w, 1) == HEARTH_E_HANDLE);
        CHECK(hearth_lease_runs(w, 1, NULL, 0) == HEARTH_E_HANDLE);
        CHECK(hearth_hint(w, NULL, 0, NULL, 0, NULL, 0) == HEARTH_E_HANDLE);
        if (w != queue) {
            CHECK(hearth_submit(w, NULL, 0, NULL, 0) == HEARTH_E_HANDLE);
            CHECK(hearth_poll(w, &end, 1, 0) == HEARTH_E_HANDLE);
            CHECK(hearth_cancel(w, 0, 1) == HEARTH_E_HANDLE);
            CHECK(hearth_event_fd(w) == HEARTH_E_HANDLE);
            CHECK(hearth_queue_close(w) == HEARTH_E_HANDLE);
        }
        if (w != space) {
            hearth_span key = {0, 1};
            uint8_t found;
            CHECK(hearth_contains(w, "k", 1, &key, 1, &found) == HEARTH_E_HANDLE);
            CHECK(hearth_prefix(w, "k", 1, &key, 1) == HEARTH_E_HANDLE);
            CHECK(hearth_namespace_close(w) == HEARTH_E_HANDLE);
            CHECK(hearth_namespace_purge(w) == HEARTH_E_HANDLE);
            hearth_entry entry;
            char data[512];
            value = 0;
            CHECK(hearth_list(w, &value, &entry, 1, data, sizeof data) == HEARTH_E_HANDLE);
        }
    }
    REFUSED(hearth_flush(queue, 0), HEARTH_E_HANDLE, "handle of a queue, not of a store");
    REFUSED(hearth_close(0), HEARTH_E_HANDLE, "0 is not a store");
    /* Of one that was closed, and whose place was taken. */
    hearth_namespace first = open_space(store, "first");
    CHECK(hearth_namespace_close(first) == 0);
    REFUSED(hearth_namespace_close(first), HEARTH_E_HANDLE, "was closed");
    hearth_namespace second = open_space(store, "second");
    CHECK(first != second && hearth_namespace_close(first) == HEARTH_E_HANDLE);
    CHECK(hearth_namespace_close(second) == 0);
    hearth_queue one;
    MUST(hearth_queue_open(store, 4, NULL, NULL, &one));
    CHECK(hearth_queue_close(one) == 0 && hearth_queue_close(one) == HEARTH_E_HANDLE);
}

static void pointers(hearth_store store, hearth_namespace space, hearth_queue queue) {
    hearth_field fields[2] = {{"a", "b"}, {NULL, "c"}};
    hearth_namespace made;
    hearth_operation operation;
    hearth_completion end;
    hearth_span key = {0, 1};
    hearth_entry entry;
    uint64_t cursor = 0;
    uint8_t found;
    char data[512];
    memset(&operation, 0, sizeof operation);
    REFUSED(hearth_durable_version(store, NULL), HEARTH_E_ARGUMENT, "version is NULL");
    REFUSED(hearth_statistics(store, HEARTH_JSON, NULL, 8), HEARTH_E_ARGUMENT, "text is NULL");
    REFUSED(hearth_statistics(store, 9, data, 8), HEARTH_E_ARGUMENT, "format 9");
    REFUSED(hearth_namespace_open(store, NULL, 1, 0, 0, 0, &made), HEARTH_E_ARGUMENT, "fields");
    REFUSED(hearth_namespace_open(store, fields, 0, 0, 0, 0, &made), HEARTH_E_ARGUMENT, "1 to 256");
    REFUSED(hearth_namespace_open(store, fields, 2, 0, 0, 0, &made), HEARTH_E_ARGUMENT,
            "fields[1]");
    REFUSED(hearth_namespace_open(store, fields, 1, 2, 0, 0, &made), HEARTH_E_ARGUMENT, "layout 2");
    REFUSED(hearth_namespace_open(store, fields, 1, 0, 0, 0, NULL), HEARTH_E_ARGUMENT, "space");
    fields[0].value = "\xc3\x28";
    REFUSED(hearth_namespace_open(store, fields, 1, 0, 0, 0, &made), HEARTH_E_ARGUMENT, "UTF-8");
    REFUSED(hearth_contains(space, NULL, 1, &key, 1, &found), HEARTH_E_ARGUMENT, "data is NULL");
    REFUSED(hearth_contains(space, "k", 1, NULL, 1, &found), HEARTH_E_ARGUMENT, "keys is NULL");
    REFUSED(hearth_contains(space, "k", 1, &key, 1, NULL), HEARTH_E_ARGUMENT, "found is NULL");
    key.length = 2;
    REFUSED(hearth_contains(space, "k", 1, &key, 1, &found), HEARTH_E_ARGUMENT, "keys[0]");
    key.offset = UINT32_MAX;
    key.length = UINT32_MAX;
    REFUSED(hearth_prefix(space, "k", 1, &key, 1), HEARTH_E_ARGUMENT, "beyond");
    key.offset = key.length = 0;
    REFUSED(hearth_prefix(space, "k", 1, &key, 1), HEARTH_E_ARGUMENT, "1 to 512");
    CHECK(hearth_contains(space, NULL, 0, NULL, 0, NULL) == 0);
    CHECK(hearth_prefix(space, NULL, 0, NULL, 0) == 0);
    hearth_prefix_ask ask;
    memset(&ask, 0, sizeof ask);
    REFUSED(hearth_prefix_worth(space, NULL, 0, NULL, 0, NULL), HEARTH_E_ARGUMENT, "ask");
    REFUSED(hearth_prefix_worth(space, NULL, 0, NULL, 0, &ask), HEARTH_E_ARGUMENT, "per_block");
    ask.tokens_per_block = 1;
    CHECK(hearth_prefix_worth(space, NULL, 0, NULL, 0, &ask) == 0);
    ask.tokens_per_second = -1;
    REFUSED(hearth_prefix_worth(space, NULL, 0, NULL, 0, &ask), HEARTH_E_ARGUMENT, "per_second");
    ask.tokens_per_second = 5e-324; /* a block takes longer than any number says */
    CHECK(hearth_prefix_worth(space, NULL, 0, NULL, 0, &ask) == 0);
    ask.tokens_per_second = 0;
    ask.reserved[1] = 1;
    REFUSED(hearth_prefix_worth(space, NULL, 0, NULL, 0, &ask), HEARTH_E_ARGUMENT, "reserved");
    REFUSED(hearth_list(space, NULL, &entry, 1, data, 512), HEARTH_E_ARGUMENT, "cursor");
    REFUSED(hearth_list(space, &cursor, NULL, 1, data, 512), HEARTH_E_ARGUMENT, "entries");
    REFUSED(hearth_list(space, &cursor, &entry, 0, data, 512), HEARTH_E_ARGUMENT, "room");
    REFUSED(hearth_list(space, &cursor, &entry, 1, NULL, 512), HEARTH_E_ARGUMENT, "data");
    REFUSED(hearth_list(space, &cursor, &entry, 1, data, 511), HEARTH_E_ARGUMENT, "512");
    cursor = 12345;
    REFUSED(hearth_list(space, &cursor, &entry, 1, data, 512), HEARTH_E_ARGUMENT, "cursor");
    REFUSED(hearth_queue_open(store, 0, NULL, NULL, &made), HEARTH_E_ARGUMENT, "capacity 0");
    REFUSED(hearth_queue_open(store, (1u << 20) + 1, NULL, NULL, &made), HEARTH_E_ARGUMENT, "2^20");
    REFUSED(hearth_queue_open(store, 1, NULL, NULL, NULL), HEARTH_E_ARGUMENT, "queue is NULL");
    REFUSED(hearth_submit(queue, NULL, 1, NULL, 0), HEARTH_E_ARGUMENT, "operations is NULL");
    REFUSED(hearth_submit(queue, &operation, 1, NULL, 5), HEARTH_E_ARGUMENT, "data is NULL");
    CHECK(hearth_submit(queue, NULL, 0, NULL, 0) == 0);
    REFUSED(hearth_poll(queue, NULL, 1, 0), HEARTH_E_ARGUMENT, "completions is NULL");
    REFUSED(hearth_poll(queue, &end, 0, 0), HEARTH_E_ARGUMENT, "room is 0");
    CHECK(hearth_poll(queue, &end, 1, 1000) == 0);
    REFUSED(hearth_cancel(queue, 2, 1), HEARTH_E_ARGUMENT, "first 2");
    CHECK(hearth_cancel(queue, 0, UINT64_MAX) == 0);
    REFUSED(hearth_lease_end(store, 0), HEARTH_E_HANDLE, "lease");
    REFUSED(hearth_lease_end(store, UINT64_MAX), HEARTH_E_HANDLE, "lease");
}

/* Each as it is right, then one thing wrong. */
static void batches(hearth_namespace space, hearth_queue queue) {
    static batch b;
    static char memory[64];
    hearth_completion end;
#define WRONG(change, words)                                             \
    do {                                                                 \
        clear(&b);                                                       \
        UNUSED hearth_operation *o = add(&b, space, HEARTH_PUT, "k", memory, sizeof memory); \
        change;                                                          \
        REFUSED(submit(queue, &b), HEARTH_E_ARGUMENT, words);            \
        CHECK(hearth_poll(queue, &end, 1, 0) == 0);                      \
    } while (0)
    WRONG(o->reserved0 = 1, "reserved");
    WRONG(o->reserved[4] = 1, "reserved");
    WRONG(o->tag = 1ull << 63, "2^63");
    WRONG(o->key.offset = (uint32_t)sizeof b.data, "key");
    WRONG(o->key.length = UINT32_MAX, "key");
    WRONG(o->parent.offset = UINT32_MAX, "parent");
    WRONG(o->pieces = 4, "aligned to 8");
    WRONG(o->pieces = (uint32_t)sizeof b.data & ~7u, "pieces");
    WRONG(o->piece_count = UINT32_MAX, "pieces");
    WRONG(b.data.pieces[0].reserved = 1, "piece 0");
    WRONG((o->shard_count = 1, o->shard_lengths = 2), "aligned to 4");
    WRONG((o->shard_count = UINT32_MAX, o->shard_lengths = 0), "shard_lengths");
#undef WRONG
    /* One wrong one among right ones: nothing was taken. */
    clear(&b);
    add(&b, space, HEARTH_PUT, "right", memory, sizeof memory);
    add(&b, space, HEARTH_PUT, "wrong", memory, sizeof memory)->reserved[0] = 1;
    REFUSED(submit(queue, &b), HEARTH_E_ARGUMENT, "operations[1]");
    CHECK(hearth_poll(queue, &end, 1, 0) == 0);

#define INVALID(change)                                                  \
    do {                                                                 \
        clear(&b);                                                       \
        UNUSED hearth_operation *o = add(&b, space, HEARTH_PUT, "k", memory, sizeof memory); \
        o->tag = 4242;                                                   \
        change;                                                          \
        memset(&end, 0, sizeof end);                                     \
        CHECK(submit(queue, &b) == 1);                                   \
        CHECK(hearth_poll(queue, &end, 1, 10 * SECOND) == 1);            \
        CHECK(end.status == HEARTH_INVALID && end.tag == 4242);          \
    } while (0)
    INVALID(o->space = 0);
    INVALID(o->space = queue);
    INVALID(o->kind = 7);
    INVALID(o->kind = 255);
    INVALID((o->kind = HEARTH_GET, o->mode = 3));
    INVALID(o->durability = 3);
    INVALID(o->flags = 2);
    INVALID(o->key.length = 0);
    INVALID(o->key.length = 513);
    INVALID(o->parent.length = 513);
    INVALID(o->piece_count = 0);
    INVALID(b.data.pieces[0].offset = 0);
    INVALID(b.data.pieces[0].length = 0);
    INVALID(b.data.pieces[0].length = UINT64_MAX);
    /* The core's own regions have numbers, but are nobody's to read. */
    for (uint32_t region = 1; region < 12; region++) {
        INVALID((b.data.pieces[0].region = region, b.data.pieces[0].offset = 0));
    }
    INVALID(b.data.pieces[0].region = 5000000);
    INVALID((o->shard_count = 1, o->shard_lengths = (uint32_t)offsetof(batch_data, lengths)));
    INVALID((o->shard_count = 64, o->shard_lengths = (uint32_t)offsetof(batch_data, lengths)));
    INVALID(o->byte_length = 5);
    INVALID((o->kind = HEARTH_GET, o->byte_length = 5, o->shard_count = 1));
    INVALID((o->kind = HEARTH_GET, o->mode = HEARTH_LEASE));
    INVALID((o->kind = HEARTH_GET, o->flags = HEARTH_REPLACE));
    INVALID((o->kind = HEARTH_DELETE));
    INVALID((o->kind = HEARTH_PIN, o->piece_count = 0));
#undef INVALID
    clear(&b);
    hearth_operation *long_key = add(&b, space, HEARTH_PUT, "k", memory, sizeof memory);
    long_key->key.length = 512;
    CHECK(submit(queue, &b) == 1 && hearth_poll(queue, &end, 1, 10 * SECOND) == 1);
    CHECK(end.status == HEARTH_STORED);
    /* Beyond what the store takes: an end, not an error. */
    char *large = (char *)calloc(1, 300 << 10);
    CHECK(run(queue, space, HEARTH_PUT, 0, "large", large, 300 << 10).status == HEARTH_TOO_LARGE);
    free(large);
}

/* Numbers at the ends of their ranges. */
static void extremes(hearth_namespace space, hearth_queue queue, hearth_queue other) {
    static batch b;
    static char value[8192];
    hearth_completion end;
    uint64_t large[] = {1, 8191, 8192, 1ull << 32, 1ull << 62, (1ull << 63) - 1, 1ull << 63,
                        UINT64_MAX};
    uint32_t small[] = {0, 1, 4095, 4096, 1u << 31, UINT32_MAX};
    const char *keys[] = {"written", "durable"};
    clear(&b);
    add(&b, space, HEARTH_PUT, "written", value, sizeof value)->durability = HEARTH_WRITTEN;
    add(&b, space, HEARTH_PUT, "durable", value, sizeof value)->durability = HEARTH_DURABLE;
    CHECK(submit(queue, &b) == 2 && collect(queue, 2, NULL));
    for (int key = 0; key < 2; key++) {
        for (uint8_t mode = 0; mode <= HEARTH_CACHED; mode++) {
            for (size_t i = 0; i < 8; i++) {
                for (size_t j = 0; j < 8; j++) {
                    clear(&b);
                    hearth_operation *o = add(&b, space, HEARTH_GET, keys[key], value, 8192);
                    o->mode = mode;
                    o->byte_offset = large[i];
                    o->byte_length = large[j];
                    CHECK(submit(queue, &b) == 1 && hearth_poll(queue, &end, 1, 10 * SECOND) == 1);
                    int fits = large[i] < 8192 && large[j] <= 8192 - large[i];
                    CHECK(end.status == (fits ? HEARTH_HIT : HEARTH_INVALID));
                }
            }
            for (size_t i = 0; i < 6; i++) {
                for (size_t j = 0; j < 6; j++) {
                    clear(&b);
                    hearth_operation *o = add(&b, space, HEARTH_GET, keys[key], value, 8192);
                    o->mode = mode;
                    o->first_shard = small[i];
                    o->shard_count = small[j];
                    CHECK(submit(queue, &b) == 1 && hearth_poll(queue, &end, 1, 10 * SECOND) == 1);
                    int fits = small[i] == 0 && small[j] <= 1;
                    CHECK(end.status == (fits ? HEARTH_HIT : HEARTH_INVALID));
                }
            }
            /* Memory of impossible sizes, alone and added up. */
            for (size_t i = 4; i < 8; i++) {
                clear(&b);
                hearth_operation *o = add(&b, space, HEARTH_GET, keys[key], value, large[i]);
                o->mode = mode;
                CHECK(submit(queue, &b) == 1 && hearth_poll(queue, &end, 1, 10 * SECOND) == 1);
                CHECK(end.status == HEARTH_INVALID || (i == 4 && end.status == HEARTH_HIT));
                clear(&b);
                o = add(&b, space, HEARTH_PUT, "new", value, large[i]);
                for (int piece = 0; piece < 8; piece++) b.data.pieces[piece] = b.data.pieces[0];
                o->piece_count = 8;
                CHECK(submit(queue, &b) == 1 && hearth_poll(queue, &end, 1, 10 * SECOND) == 1);
                CHECK(end.status == HEARTH_INVALID || end.status == HEARTH_TOO_LARGE);
            }
        }
        clear(&b);
        hearth_operation *o = add(&b, space, HEARTH_PIN, keys[key], NULL, 0);
        o->timeout_ns = UINT64_MAX;
        o->time_to_live_s = UINT32_MAX;
        CHECK(submit(other, &b) == 1 && hearth_poll(other, &end, 1, UINT64_MAX - 1) == 1);
        CHECK(end.status == HEARTH_DONE);
        clear(&b);
        o = add(&b, space, HEARTH_PUT, keys[key], value, sizeof value);
        o->flags = HEARTH_REPLACE;
        o->timeout_ns = UINT64_MAX;
        o->time_to_live_s = UINT32_MAX;
        CHECK(submit(other, &b) == 1 && hearth_poll(other, &end, 1, 10 * SECOND) == 1);
        CHECK(end.status == HEARTH_STORED);
    }
}

/* The same where everything comes from the device. */
static void without_staging(const char *below) {
    const char *options[] = {"capacity=512M", "segment=4M", "max_block=256K", "memory=128M",
                             "staging=0", "index_entries=65536", NULL};
    char kept[sizeof endpoint_text];
    hearth_store store = 0;
    hearth_queue queue = 0, other = 0;
    strcpy(kept, endpoint_text);
    MUST(hearth_open(new_endpoint(below, "device"), options, &store));
    strcpy(endpoint_text, kept);
    hearth_namespace space = open_space(store, "m");
    MUST(hearth_queue_open(store, 128, NULL, NULL, &queue));
    MUST(hearth_queue_open(store, 1, NULL, NULL, &other));
    extremes(space, queue, other);
    CHECK(hearth_close(store) == 0);
}

static void locks(hearth_store store) {
    hearth_store other;
    REFUSED(hearth_open(where, small_store, &other), HEARTH_E_LOCKED, "pid");
    pid_t child = fork();
    if (child == 0) {
        /* A new open in the child is a second one too. */
        int right = hearth_open(where, small_store, &other) == HEARTH_E_LOCKED;
        _exit(right ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(hearth_flush(store, UINT64_MAX) == 0);
}

static void full_queue(hearth_store store, hearth_namespace space) {
    hearth_queue queue;
    static char value[BATCH][4096];
    static batch b;
    hearth_completion ends[BATCH];
    MUST(hearth_queue_open(store, 10, NULL, NULL, &queue));
    clear(&b);
    for (uint32_t i = 0; i < 16; i++) {
        char key[16];
        snprintf(key, sizeof key, "full %u", i);
        add(&b, space, HEARTH_PUT, key, value[i], sizeof value[i]);
    }
    CHECK(submit(queue, &b) == 10);
    CHECK(submit(queue, &b) == 0);
    int64_t got = 0;
    for (int i = 0; i < 10 && got < 10; i++) {
        int64_t part = hearth_poll(queue, ends, 3, 10 * SECOND);
        CHECK(part >= 1 && part <= 3);
        got += part;
    }
    CHECK(got == 10);
    CHECK(submit(queue, &b) == 10);
    CHECK(collect(queue, 10, NULL));
    CHECK(hearth_queue_close(queue) == 0);
}

static void wrong_hints(hearth_store store, hearth_namespace space) {
    hearth_hint_message hint;
    hearth_span key = {0, 1};
    memset(&hint, 0, sizeof hint);
    hint.space = space;
    hint.key_count = 1;
    CHECK(hearth_hint(store, &hint, 1, "k", 1, &key, 1) == 1);
    REFUSED(hearth_hint(store, &hint, 1, "k", 1, NULL, 1), HEARTH_E_ARGUMENT, "keys");
    REFUSED(hearth_hint(store, NULL, 1, "k", 1, &key, 1), HEARTH_E_ARGUMENT, "hints");
    REFUSED(hearth_hint(store, &hint, 1, "k", 1, &key, 0), HEARTH_E_ARGUMENT, "1 keys");
    key.length = 9;
    REFUSED(hearth_hint(store, &hint, 1, "k", 1, &key, 1), HEARTH_E_ARGUMENT, "beyond");
    key.length = 1;
    hint.reserved = 1;
    REFUSED(hearth_hint(store, &hint, 1, "k", 1, &key, 1), HEARTH_E_ARGUMENT, "reserved");
    hint.reserved = 0;
    hint.space = store;
    CHECK(hearth_hint(store, &hint, 1, "k", 1, &key, 1) == 0);
    hint.space = space;
    hint.kind = HEARTH_HINT_PAGES;
    hint.number = 1;
    hint.confidence = 65537;
    CHECK(hearth_hint(store, &hint, 1, "k", 1, &key, 1) == 0);
    hint.kind = HEARTH_HINT_SESSION;
    hint.session = 1;
    hint.state = 5;
    CHECK(hearth_hint(store, &hint, 1, "k", 1, &key, 1) == 0);
}

int main(int count, char **words) {
    if (count != 2) return 2;
    opening();
    hearth_store store = 0;
    where = new_endpoint(words[1], "misuse");
    MUST(hearth_open(where, small_store, &store));
    hearth_namespace space = open_space(store, "m");
    hearth_queue queue = 0;
    MUST(hearth_queue_open(store, 128, NULL, NULL, &queue));
    handles(store, space, queue);
    pointers(store, space, queue);
    batches(space, queue);
    hearth_queue other = 0;
    MUST(hearth_queue_open(store, 1, NULL, NULL, &other));
    extremes(space, queue, other);
    without_staging(words[1]);
    locks(store);
    full_queue(store, space);
    wrong_hints(store, space);
    CHECK(hearth_close(store) == 0);
    REFUSED(hearth_close(store), HEARTH_E_HANDLE, "was closed");
    hearth_completion end;
    CHECK(hearth_poll(queue, &end, 1, 0) == HEARTH_E_HANDLE);
    CHECK(hearth_namespace_close(space) == HEARTH_E_HANDLE);
    return finish("misuse");
}
