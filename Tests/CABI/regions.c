/* Regions: host memory, memory shared by descriptor, device memory that only its functions touch;
 * and their misuse. */
#include "harness.h"

enum { BYTES = 1 << 20 };

static hearth_store store;
static hearth_namespace space;
static hearth_queue queue;

static hearth_completion move(uint8_t kind, uint8_t mode, const char *key, hearth_region region,
                              uint64_t offset, uint64_t length) {
    static batch b;
    hearth_completion end;
    memset(&end, 0, sizeof end);
    end.status = 255;
    clear(&b);
    add(&b, space, kind, key, &b, length)->mode = mode;
    b.data.pieces[0].region = region;
    b.data.pieces[0].offset = offset;
    if (kind == HEARTH_PUT) b.operations[0].durability = HEARTH_WRITTEN;
    if (submit(queue, &b) == 1) hearth_poll(queue, &end, 1, 10 * SECOND);
    return end;
}

/* Puts from the region's front half, gets into its back half, aligned and not, both modes. */
static void round_trips(hearth_region region, char *memory, const char *name) {
    uint64_t offsets[] = {0, 4096, 12289};
    char key[64];
    for (int i = 0; i < 3; i++) {
        for (uint8_t mode = HEARTH_DIRECT; mode <= HEARTH_CACHED; mode++) {
            uint64_t from = offsets[i], to = BYTES / 2 + offsets[2 - i];
            snprintf(key, sizeof key, "%s %d %d", name, i, mode);
            fill(memory + from, 100000, (unsigned)(i * 2 + mode));
            memset(memory + to, 0, 100000);
            CHECK(move(HEARTH_PUT, 0, key, region, from, 100000).status == HEARTH_STORED);
            hearth_completion end = move(HEARTH_GET, mode, key, region, to, 100000);
            CHECK(end.status == HEARTH_HIT && end.delivered == 100000);
            CHECK(!memcmp(memory + from, memory + to, 100000));
        }
    }
}

static int32_t to_device(uintptr_t device, uint64_t offset, void *host, size_t length) {
    memcpy((char *)device + offset, host, length);
    return 0;
}
static int32_t from_device(uintptr_t device, uint64_t offset, void *host, size_t length) {
    memcpy(host, (char *)device + offset, length);
    return 0;
}

int main(int count, char **words) {
    if (count != 2) return 2;
    MUST(hearth_open(new_endpoint(words[1], "regions"), small_store, &store));
    space = open_space(store, "m");
    MUST(hearth_queue_open(store, 64, NULL, NULL, &queue));
    hearth_region region = 9;

    char *host = (char *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                              0);
    MUST(hearth_register(store, host, BYTES, -1, &region));
    CHECK(region != 0);
    round_trips(region, host, "host");
    CHECK(move(HEARTH_PUT, 0, "beyond", region, BYTES - 5, 6).status == HEARTH_INVALID);
    CHECK(move(HEARTH_PUT, 0, "beyond", region, UINT64_MAX, 6).status == HEARTH_INVALID);
    CHECK(move(HEARTH_GET, HEARTH_CACHED, "host 0 0", region, BYTES - 5, 100000).status ==
          HEARTH_INVALID);
    CHECK(move(HEARTH_PUT, 0, "beyond", region + 1, 0, 6).status == HEARTH_INVALID);

    int fd = memfd_create("region", 0);
    CHECK(fd >= 0 && ftruncate(fd, BYTES) == 0);
    char *shared = (char *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    hearth_region second = 0;
    REFUSED(hearth_register(store, shared, BYTES + 1, fd, &second), HEARTH_E_ARGUMENT, "fewer");
    REFUSED(hearth_register(store, shared, BYTES, 9999, &second), HEARTH_E_ARGUMENT, "descriptor");
    MUST(hearth_register(store, shared, BYTES, fd, &second));
    CHECK(second != region);
    round_trips(second, shared, "shared");

    char *device = (char *)malloc(BYTES);
    hearth_region third = 0;
    MUST(hearth_register_device(store, BYTES, (uintptr_t)device, to_device, from_device, &third));
    round_trips(third, device, "device");

    REFUSED(hearth_register(store, NULL, 5, -1, &third), HEARTH_E_ARGUMENT, "address is NULL");
    REFUSED(hearth_register(store, host, 0, -1, &third), HEARTH_E_ARGUMENT, "length 0");
    REFUSED(hearth_register(store, host, UINT64_MAX, -1, &third), HEARTH_E_ARGUMENT, "length");
    REFUSED(hearth_register(store, host, 5, -1, NULL), HEARTH_E_ARGUMENT, "region is NULL");
    hearth_region none;
    REFUSED(hearth_register_device(store, 5, 0, NULL, from_device, &none), HEARTH_E_ARGUMENT,
            "to_device");
    REFUSED(hearth_register_device(store, 0, 0, to_device, from_device, &none), HEARTH_E_ARGUMENT,
            "length 0");
    REFUSED(hearth_unregister(store, 0), HEARTH_E_HANDLE, "Region 0");
    REFUSED(hearth_unregister(store, 1), HEARTH_E_HANDLE, "no region 1");
    REFUSED(hearth_unregister(store, UINT32_MAX), HEARTH_E_HANDLE, "no region");
    CHECK(hearth_unregister(store, region) == 0);
    REFUSED(hearth_unregister(store, region), HEARTH_E_HANDLE, "no region");
    CHECK(move(HEARTH_PUT, 0, "gone", region, 0, 6).status == HEARTH_INVALID);

    /* In use: refused until the completions are in, and then not. */
    int refused = 0, tries = 0;
    while (!refused && tries++ < 200) {
        static batch b;
        hearth_completion ends[BATCH];
        clear(&b);
        for (uint32_t i = 0; i < 8; i++) {
            char key[32];
            snprintf(key, sizeof key, "in use %d %u", tries, i);
            add(&b, space, HEARTH_PUT, key, &b, 65536)->durability = HEARTH_DURABLE;
            b.data.pieces[i].region = second;
            b.data.pieces[i].offset = i * 65536;
        }
        CHECK(submit(queue, &b) == 8);
        int32_t result = hearth_unregister(store, second);
        refused = result == HEARTH_E_ARGUMENT;
        if (result == 0) MUST(hearth_register(store, shared, BYTES, fd, &second));
        CHECK(collect(queue, 8, ends));
    }
    CHECK(refused);
    CHECK(hearth_unregister(store, second) == 0);
    CHECK(hearth_close(store) == 0);
    munmap(host, BYTES);
    munmap(shared, BYTES);
    free(device);
    close(fd);
    return finish("regions");
}
