/* Says of its memory that it is larger than it is: AddressSanitizer has to find the write inside
 * the library. Where it does not, this ends with 0, and the test of the tests fails. */
#include "../harness.h"

int main(int count, char **words) {
    if (count != 2) return 2;
    hearth_store store = 0;
    hearth_queue queue = 0;
    MUST(hearth_open(new_endpoint(words[1], "overflow"), small_store, &store));
    hearth_namespace space = open_space(store, "m");
    MUST(hearth_queue_open(store, 8, NULL, NULL, &queue));
    char *value = (char *)calloc(1, 8192), *room = (char *)malloc(4096);
    CHECK(run(queue, space, HEARTH_PUT, 0, "k", value, 8192).status == HEARTH_STORED);
    CHECK(run(queue, space, HEARTH_GET, HEARTH_CACHED, "k", room, 8192).status == HEARTH_HIT);
    hearth_close(store);
    free(room);
    free(value);
    return 0;
}
