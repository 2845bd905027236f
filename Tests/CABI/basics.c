/* Every function of the header, used as it is meant to be. */
#include "harness.h"

static void library(void) {
    CHECK(hearth_version() == ((uint32_t)HEARTH_VERSION_MAJOR << 16 | HEARTH_VERSION_MINOR));
    const char *known[] = {"dir", "io_uring", "region-shared", "region-device", "lease", "hints",
                           "list", "prefix-ask", "engine-memory"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        CHECK(hearth_has_feature(known[i]) == 1);
    }
    CHECK(hearth_has_feature("unix") == 0);
    CHECK(hearth_has_feature("?") == 0);
    CHECK(hearth_has_feature(NULL) == 0);
    CHECK(!strcmp(hearth_error_name(HEARTH_E_LOCKED), "HEARTH_E_LOCKED"));
    CHECK(!strcmp(hearth_error_name(-999), "?"));
    CHECK(!strcmp(hearth_status_name(HEARTH_HIT), "hit"));
    CHECK(!strcmp(hearth_status_name(99), "?"));
    CHECK(!strcmp(hearth_reason_name(HEARTH_REASON_EVICTED), "evicted"));
    CHECK(!strcmp(hearth_reason_name(99), "?"));
    for (int32_t code = HEARTH_E_INTERNAL; code < 0; code++) {
        CHECK(hearth_error_name(code)[0] == 'H');
    }
    for (uint32_t status = 0; status <= HEARTH_DONE; status++) {
        CHECK(hearth_status_name(status)[0] != '?');
    }
    for (uint32_t reason = 0; reason <= HEARTH_REASON_DEADLINE; reason++) {
        CHECK(hearth_reason_name(reason)[0] != '?');
    }
}

static void blocks(hearth_store store, hearth_namespace space, hearth_queue queue) {
    enum { BYTES = 9000 };
    char *in = (char *)malloc((size_t)BATCH * BYTES), *out = (char *)malloc((size_t)BATCH * BYTES);
    hearth_completion ends[BATCH];
    hearth_span keys[BATCH];
    uint8_t found[BATCH];
    batch b;
    char key[32];
    fill(in, (size_t)BATCH * BYTES, 1);
    clear(&b);
    for (uint32_t i = 0; i < BATCH; i++) {
        snprintf(key, sizeof key, "block %u", i);
        /* At every alignment. */
        add(&b, space, HEARTH_PUT, key, in + (size_t)i * BYTES + i % 7, BYTES - 8);
        b.operations[i].durability = (uint8_t)(i % 3);
        keys[i] = b.operations[i].key;
        if (i > 0) b.operations[i].parent = keys[i - 1];
    }
    CHECK(submit(queue, &b) == BATCH);
    CHECK(collect(queue, BATCH, ends));
    uint64_t newest = 0;
    for (uint32_t i = 0; i < BATCH; i++) {
        CHECK(ends[i].status == HEARTH_STORED && ends[i].version > 0);
        if (ends[i].version > newest) newest = ends[i].version;
    }
    CHECK(hearth_contains(space, &b.data, sizeof b.data, keys, BATCH, found) == BATCH);
    CHECK(hearth_prefix(space, &b.data, sizeof b.data, keys, BATCH) == BATCH);
    /* Without a rate everything is claimed, and against an engine this slow too, or one block. */
    hearth_prefix_ask ask;
    memset(&ask, 0, sizeof ask);
    CHECK(sizeof ask == 96);
    ask.tokens_per_block = 16;
    CHECK(hearth_prefix_worth(space, &b.data, sizeof b.data, keys, BATCH, &ask) >= 1);
    CHECK(ask.present == BATCH);
    ask.tokens_per_second = 0.001;
    CHECK(hearth_prefix_worth(space, &b.data, sizeof b.data, keys, BATCH, &ask) >= 1);
    CHECK(hearth_computed(store, 1000, 50000000) == 0);
    CHECK(hearth_flush(store, newest) == 0);
    uint64_t durable = 0;
    CHECK(hearth_durable_version(store, &durable) == 0 && durable >= newest);

    for (uint8_t mode = HEARTH_DIRECT; mode <= HEARTH_CACHED; mode++) {
        memset(out, 0, (size_t)BATCH * BYTES);
        clear(&b);
        for (uint32_t i = 0; i < BATCH; i++) {
            snprintf(key, sizeof key, "block %u", i);
            add(&b, space, HEARTH_GET, key, out + (size_t)i * BYTES + i % 5, BYTES - 8);
            b.operations[i].mode = mode;
        }
        CHECK(submit(queue, &b) == BATCH);
        CHECK(collect(queue, BATCH, ends));
        for (uint32_t i = 0; i < BATCH; i++) {
            CHECK(ends[i].status == HEARTH_HIT && ends[i].length == BYTES - 8);
            CHECK(ends[i].delivered == BYTES - 8 && ends[i].shard_count == 1 && ends[i].tier > 0);
            size_t at = (size_t)i * BYTES;
            CHECK(!memcmp(out + at + i % 5, in + at + i % 7, BYTES - 8));
        }
    }
    /* A range of bytes, through two pieces. */
    clear(&b);
    add(&b, space, HEARTH_GET, "block 3", out, 100);
    b.data.pieces[1].offset = (uint64_t)(uintptr_t)(out + 4000);
    b.data.pieces[1].length = 3000;
    b.operations[0].piece_count = 2;
    b.operations[0].byte_offset = 500;
    b.operations[0].byte_length = 2000;
    CHECK(submit(queue, &b) == 1 && collect(queue, 1, ends));
    CHECK(ends[0].status == HEARTH_HIT && ends[0].delivered == 2000);
    CHECK(!memcmp(out, in + 3 * BYTES + 3 + 500, 100));
    CHECK(!memcmp(out + 4000, in + 3 * BYTES + 3 + 600, 1900));

    CHECK(run(queue, space, HEARTH_PUT, 0, "block 3", in, BYTES - 8).status == HEARTH_ALREADY);
    CHECK(run(queue, space, HEARTH_PUT, 0, "block 3", in, 77).status == HEARTH_CONFLICT);
    clear(&b);
    add(&b, space, HEARTH_PUT, "block 3", in, 77);
    b.operations[0].flags = HEARTH_REPLACE;
    b.operations[0].durability = HEARTH_DURABLE;
    CHECK(submit(queue, &b) == 1 && collect(queue, 1, ends) && ends[0].status == HEARTH_STORED);
    CHECK(run(queue, space, HEARTH_GET, 0, "block 3", out, 77).status == HEARTH_HIT);
    CHECK(!memcmp(in, out, 77));
    CHECK(run(queue, space, HEARTH_TOUCH, 0, "block 4", NULL, 0).status == HEARTH_DONE);
    CHECK(run(queue, space, HEARTH_CONTAINS, 0, "block 4", NULL, 0).status == HEARTH_HIT);
    CHECK(run(queue, space, HEARTH_CONTAINS, 0, "nobody", NULL, 0).status == HEARTH_MISS);
    clear(&b);
    add(&b, space, HEARTH_PIN, "block 4", NULL, 0)->timeout_ns = 60 * SECOND;
    CHECK(submit(queue, &b) == 1 && collect(queue, 1, ends) && ends[0].status == HEARTH_DONE);
    CHECK(run(queue, space, HEARTH_UNPIN, 0, "block 4", NULL, 0).status == HEARTH_DONE);
    CHECK(run(queue, space, HEARTH_DELETE, 0, "block 4", NULL, 0).status == HEARTH_DELETED);
    CHECK(run(queue, space, HEARTH_DELETE, 0, "block 4", NULL, 0).status == HEARTH_NOT_FOUND);
    hearth_completion gone = run(queue, space, HEARTH_GET, 0, "block 4", out, BYTES);
    CHECK(gone.status == HEARTH_MISS && gone.reason != HEARTH_REASON_NONE);
    CHECK(hearth_prefix(space, &b.data, sizeof b.data, keys, 1) == 0);

    /* Three shards, one read alone. */
    clear(&b);
    add(&b, space, HEARTH_PUT, "sharded", in, 6000);
    b.data.lengths[0] = 1000;
    b.data.lengths[1] = 2000;
    b.data.lengths[2] = 3000;
    b.operations[0].shard_lengths = (uint32_t)offsetof(batch_data, lengths);
    b.operations[0].shard_count = 3;
    CHECK(submit(queue, &b) == 1 && collect(queue, 1, ends) && ends[0].status == HEARTH_STORED);
    clear(&b);
    add(&b, space, HEARTH_GET, "sharded", out, 2000);
    b.operations[0].first_shard = 1;
    b.operations[0].shard_count = 1;
    CHECK(submit(queue, &b) == 1 && collect(queue, 1, ends));
    CHECK(ends[0].status == HEARTH_HIT && ends[0].delivered == 2000 && ends[0].shard_count == 3);
    CHECK(!memcmp(out, in + 1000, 2000));
    free(in);
    free(out);
}

static void leases(hearth_store store, hearth_namespace space, hearth_queue queue) {
    enum { BYTES = 200000 };
    char *in = (char *)malloc(BYTES);
    fill(in, BYTES, 2);
    CHECK(run(queue, space, HEARTH_PUT, 0, "leased", in, BYTES).status == HEARTH_STORED);
    batch b;
    hearth_completion end;
    clear(&b);
    add(&b, space, HEARTH_GET, "leased", NULL, 0);
    b.operations[0].mode = HEARTH_LEASE;
    b.operations[0].byte_offset = 1234;
    b.operations[0].byte_length = 150000;
    CHECK(submit(queue, &b) == 1 && hearth_poll(queue, &end, 1, 10 * SECOND) == 1);
    CHECK(end.status == HEARTH_HIT && end.lease != 0 && end.delivered == 150000);
    hearth_run runs[16];
    int64_t count = hearth_lease_runs(store, end.lease, runs, 16);
    CHECK(count >= 1 && count <= 16 && hearth_lease_runs(store, end.lease, NULL, 0) == count);
    uint64_t at = 1234;
    for (int64_t i = 0; i < count && i < 16; i++) {
        CHECK(!memcmp(runs[i].address, in + at, runs[i].length));
        at += runs[i].length;
    }
    CHECK(at == 1234 + 150000);
    CHECK(hearth_lease_end(store, end.lease) == 0);
    REFUSED(hearth_lease_end(store, end.lease), HEARTH_E_HANDLE, "no such lease");
    REFUSED(hearth_lease_runs(store, end.lease, runs, 16), HEARTH_E_HANDLE, "no such lease");
    free(in);
}

static void listing(hearth_store store, hearth_queue queue) {
    hearth_namespace space = open_space(store, "listed");
    char key[32], value[3000], data[2048];
    int told[100] = {0};
    fill(value, sizeof value, 3);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%d", i);
        hearth_completion end = run(queue, space, HEARTH_PUT, 0, key, value, 1000 + (uint64_t)i);
        CHECK(end.status == HEARTH_STORED);
    }
    uint64_t cursor = 0;
    int rounds = 0, count = 0;
    do {
        hearth_entry entries[9];
        int64_t part = hearth_list(space, &cursor, entries, 9, data, sizeof data);
        MUST(part);
        for (int64_t i = 0; i < part; i++) {
            memset(key, 0, sizeof key);
            memcpy(key, data + entries[i].key.offset, entries[i].key.length);
            int number = atoi(key);
            CHECK(number >= 0 && number < 100 && entries[i].length == 1000 + (uint64_t)number);
            CHECK(entries[i].version > 0 && entries[i].shard_count == 1);
            told[number]++;
            count++;
        }
    } while (cursor != 0 && ++rounds < 1000);
    CHECK(count == 100);
    for (int i = 0; i < 100; i++) CHECK(told[i] == 1);
    CHECK(hearth_namespace_purge(space) == 0);
    hearth_namespace again = open_space(store, "listed");
    hearth_entry entry;
    cursor = 0;
    CHECK(hearth_list(again, &cursor, &entry, 1, data, sizeof data) == 0 && cursor == 0);
    CHECK(hearth_namespace_close(again) == 0);
}

static void hints(hearth_store store, hearth_namespace space) {
    hearth_hint_message hint[3];
    hearth_span keys[3] = {{0, 3}, {3, 3}, {6, 3}};
    memset(hint, 0, sizeof hint);
    hint[0].space = space;
    hint[0].kind = HEARTH_HINT_CHAIN;
    hint[0].key_count = 2;
    hint[0].when_ns = SECOND;
    hint[1].kind = HEARTH_HINT_PROGRESS;
    hint[1].request = 7;
    hint[1].layer = 3;
    hint[2].space = space;
    hint[2].kind = 77;
    hint[2].key_count = 1;
    CHECK(hearth_hint(store, hint, 3, "aaabbbccc", 9, keys, 3) == 2);
    CHECK(hearth_hint(store, NULL, 0, NULL, 0, NULL, 0) == 0);
}

/* An engine with memory of its own: eight places, filled by announced blocks. */
enum { ENGINE_BYTES = 9000, ENGINE_PLACES = 8 };
typedef struct engine {
    char memory[ENGINE_PLACES][ENGINE_BYTES];
    char keys[ENGINE_PLACES][32];
    uint64_t later[ENGINE_PLACES];
    volatile uint32_t count;
} engine;

static int32_t take_up(uintptr_t context, const hearth_promotion *block) {
    engine *all = (engine *)context;
    if (all->count == ENGINE_PLACES) return HEARTH_PROMOTE_REFUSED;
    if (block->length != ENGINE_BYTES || block->key_length >= 32) return -1;
    /* A block that was evicted is wanted by both: whichever the store comes to first. */
    if (block->request != 5 && block->request != 6) return -1;
    uint32_t place = all->count;
    uint64_t at = 0;
    for (uint32_t i = 0; i < block->run_count; i++) {
        memcpy(all->memory[place] + at, block->runs[i].address, block->runs[i].length);
        at += block->runs[i].length;
    }
    memcpy(all->keys[place], block->key, block->key_length);
    all->later[place] = place % 2 ? block->token : 0;
    __atomic_store_n(&all->count, place + 1, __ATOMIC_RELEASE);
    return place % 2 ? HEARTH_PROMOTING : HEARTH_PROMOTED;
}

/* Ends a copy while the store is closing. */
typedef struct late_end {
    hearth_store store;
    uint64_t token;
    int32_t status;
} late_end;

static void *end_later(void *argument) {
    late_end *end = (late_end *)argument;
    usleep(300000);
    end->status = hearth_promoted(end->store, end->token, 1);
    return NULL;
}

static void engine_memory(const char *below) {
    static const char *const options[] = {
        "capacity=512M", "segment=4M", "max_block=256K", "memory=128M", "staging=32M",
        "index_entries=65536", "engine_memory=1M", "engine_high=0.9", "engine_low=0.5", NULL};
    static engine all;
    CHECK(sizeof(hearth_promotion) == 88);
    hearth_store store = 0;
    hearth_queue queue = 0;
    MUST(hearth_open(new_endpoint(below, "engine"), options, &store));
    hearth_namespace space = open_space(store, "m");
    MUST(hearth_queue_open(store, 128, NULL, NULL, &queue));
    char value[ENGINE_BYTES], names[ENGINE_PLACES * 32] = {0};
    hearth_span keys[ENGINE_PLACES];
    for (uint32_t i = 0; i < ENGINE_PLACES; i++) {
        char *name = names + i * 32;
        keys[i].offset = i * 32;
        keys[i].length = (uint32_t)snprintf(name, 32, "up %u", i);
        fill(value, sizeof value, 100 + i);
        CHECK(run(queue, space, HEARTH_PUT, 0, name, value, sizeof value).status == HEARTH_STORED);
    }
    CHECK(hearth_promotions(space, take_up, (uintptr_t)&all) == 0);
    hearth_hint_message hint;
    memset(&hint, 0, sizeof hint);
    hint.space = space;
    hint.kind = HEARTH_HINT_CHAIN;
    hint.request = 5;
    hint.when_ns = 20 * SECOND;
    hint.key_count = ENGINE_PLACES;
    CHECK(hearth_hint(store, &hint, 1, names, sizeof names, keys, ENGINE_PLACES) == 1);
    for (int i = 0; i < 1000 && __atomic_load_n(&all.count, __ATOMIC_ACQUIRE) < ENGINE_PLACES; i++)
        usleep(10000);
    CHECK(all.count == ENGINE_PLACES);
    for (uint32_t i = 0; i < ENGINE_PLACES; i++) {
        unsigned number = 99;
        CHECK(sscanf(all.keys[i], "up %u", &number) == 1 && number < ENGINE_PLACES);
        fill(value, sizeof value, 100 + number);
        CHECK(!memcmp(value, all.memory[i], sizeof value));
        if (all.later[i]) CHECK(hearth_promoted(store, all.later[i], 1) == 0);
    }
    CHECK(hearth_promoted(store, 12345678901ull, 1) == 0); /* counted, no more */
    hint.kind = HEARTH_HINT_EVICTED;
    hint.key_count = 2;
    CHECK(hearth_hint(store, &hint, 1, names, sizeof names, keys, 2) == 1);
    hint.kind = HEARTH_HINT_ADMITTED;
    hint.key_count = 0;
    CHECK(hearth_hint(store, &hint, 1, NULL, 0, NULL, 0) == 0);
    CHECK(hearth_promotions(space, NULL, 0) == 0);
    static char text[1 << 16];
    int found = 0;
    for (int i = 0; i < 500 && !found; i++) {
        CHECK(hearth_statistics(store, HEARTH_JSON, text, sizeof text) > 0);
        found = strstr(text, "\"held\":6,") != NULL && strstr(text, "\"strayEnds\":1,") != NULL;
        if (!found) usleep(10000);
    }
    CHECK(found);
    CHECK(strstr(text, "\"promotions\":8,\"promotedBytes\":72000,\"demotions\":2,") != NULL);
    all.count = 0;
    CHECK(hearth_promotions(space, take_up, (uintptr_t)&all) == 0);
    hint.kind = HEARTH_HINT_CHAIN;
    hint.request = 6;
    hint.when_ns = 30 * SECOND;
    hint.key_count = 2;
    CHECK(hearth_hint(store, &hint, 1, names, sizeof names, keys, 2) == 1);
    for (int i = 0; i < 1000 && __atomic_load_n(&all.count, __ATOMIC_ACQUIRE) < 2; i++)
        usleep(10000);
    CHECK(all.count == 2 && all.later[1] != 0);
    late_end end = {store, all.later[1], 99};
    pthread_t thread;
    MUST(pthread_create(&thread, NULL, end_later, &end));
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK(hearth_close(store) == 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    pthread_join(thread, NULL);
    CHECK(end.status == 0 && after.tv_sec - before.tv_sec < 4);
    CHECK(hearth_promotions(space, take_up, 0) < 0 && hearth_promoted(store, 1, 1) < 0);
}

static void statistics(hearth_store store) {
    int64_t needed = hearth_statistics(store, HEARTH_JSON, NULL, 0);
    CHECK(needed > 1000);
    char small[8] = "before";
    CHECK(hearth_statistics(store, HEARTH_JSON, small, sizeof small) > 8);
    CHECK(!strcmp(small, "before"));
    size_t room = (size_t)needed + 4096;
    char *text = (char *)malloc(room);
    int64_t got = hearth_statistics(store, HEARTH_JSON, text, room);
    CHECK(got > 0 && (size_t)got == strlen(text) + 1 && text[0] == '{');
    CHECK(strstr(text, "\"hints\":{\"byKind\":{\"chain\":1,\"progress\":1},\"keys\":2,"
                       "\"refused\":1,\"dropped\":0}") != NULL);
    free(text);
    needed = hearth_statistics(store, HEARTH_PROMETHEUS, NULL, 0);
    room = (size_t)needed + 4096;
    text = (char *)malloc(room);
    CHECK(hearth_statistics(store, HEARTH_PROMETHEUS, text, room) > 0);
    CHECK(strstr(text, "# TYPE hearth_gets_hits_device counter\nhearth_gets_hits_device ") != NULL);
    CHECK(strstr(text, "hearth_hints_by_kind{kind=\"chain\"} 1\n") != NULL);
    CHECK(strstr(text, "hearth_gets_latency_device{quantile=\"0.99\"} ") != NULL);
    CHECK(strstr(text, "hearth_driver_info{kind=") != NULL);
    free(text);
}

int main(int count, char **words) {
    if (count != 2) return 2;
    library();
    hearth_store store = 0;
    MUST(hearth_open(new_endpoint(words[1], "basics"), small_store, &store));
    CHECK(hearth_wait_recovered(store) == 0);
    hearth_namespace space = open_space(store, "m");
    hearth_queue queue = 0;
    MUST(hearth_queue_open(store, 128, NULL, NULL, &queue));
    blocks(store, space, queue);
    leases(store, space, queue);
    listing(store, queue);
    hints(store, space);
    statistics(store);
    CHECK(hearth_checkpoint(store) == 0);
    CHECK(hearth_queue_close(queue) == 0);
    CHECK(hearth_namespace_close(space) == 0);
    CHECK(hearth_close(store) == 0);

    /* Reopened, it has what it had. */
    MUST(hearth_open(endpoint_text, small_store, &store));
    CHECK(hearth_wait_recovered(store) == 0);
    space = open_space(store, "m");
    MUST(hearth_queue_open(store, 1, NULL, NULL, &queue));
    char out[9000];
    CHECK(run(queue, space, HEARTH_GET, 0, "block 5", out, sizeof out).status == HEARTH_HIT);
    CHECK(run(queue, space, HEARTH_GET, 0, "block 4", out, sizeof out).status == HEARTH_MISS);
    CHECK(hearth_close(store) == 0);
    engine_memory(words[1]);
    return finish("basics");
}
