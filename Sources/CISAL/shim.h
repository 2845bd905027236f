#include <features.h>
#include <isa-l/crc.h>
#include <isa-l/crc64.h>
