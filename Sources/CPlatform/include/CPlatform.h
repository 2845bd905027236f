// CPlatform: the few Linux calls and constants that Swift's Glibc module does not import.
#ifndef HEARTH_CPLATFORM_H
#define HEARTH_CPLATFORM_H
#include <features.h>
#endif
