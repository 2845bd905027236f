/* The sizes and offsets that the header promises, held at compile time. */
#include "hearth.h"

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)
#define OFFSET(type, field, bytes) \
    _Static_assert(offsetof(type, field) == (bytes), #type "." #field)

SIZE(hearth_span, 8);
SIZE(hearth_piece, 24);
SIZE(hearth_operation, 128);
SIZE(hearth_completion, 96);
SIZE(hearth_entry, 32);
SIZE(hearth_field, 2 * sizeof(void *));
SIZE(hearth_run, sizeof(void *) + 8);
SIZE(hearth_hint_message, 72);

OFFSET(hearth_piece, region, 16);
OFFSET(hearth_operation, space, 8);
OFFSET(hearth_operation, kind, 16);
OFFSET(hearth_operation, flags, 19);
OFFSET(hearth_operation, key, 24);
OFFSET(hearth_operation, pieces, 40);
OFFSET(hearth_operation, shard_lengths, 48);
OFFSET(hearth_operation, first_shard, 56);
OFFSET(hearth_operation, byte_offset, 64);
OFFSET(hearth_operation, timeout_ns, 80);
OFFSET(hearth_operation, reserved, 88);
OFFSET(hearth_completion, status, 8);
OFFSET(hearth_completion, system_error, 12);
OFFSET(hearth_completion, version, 16);
OFFSET(hearth_completion, shard_count, 40);
OFFSET(hearth_completion, retry_ns, 48);
OFFSET(hearth_completion, lease, 72);
OFFSET(hearth_hint_message, kind, 32);
OFFSET(hearth_hint_message, reserved, 64);
