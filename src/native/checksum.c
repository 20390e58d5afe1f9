/* CRC32C (Castagnoli, reflected polynomial 0x82f63b78): by instruction, or eight tables. */
#include "holdfast.h"

#include <string.h>

static uint32_t tables[8][256];

/* tables[0] advances by a byte; tables[k] by a byte and k zero bytes behind it. */
static void make_tables(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    tables[0][i] = crc;
  }
  for (int k = 1; k < 8; k++)
    for (int i = 0; i < 256; i++)
      tables[k][i] = (tables[k - 1][i] >> 8) ^ tables[0][tables[k - 1][i] & 255];
}

static uint32_t crc_software(uint32_t crc, const unsigned char *p, size_t length) {
  static uv_once_t once = UV_ONCE_INIT;
  uv_once(&once, make_tables);
  for (; length >= 8; p += 8, length -= 8) {
    crc = tables[7][(crc ^ p[0]) & 255] ^ tables[6][((crc >> 8) ^ p[1]) & 255] ^
          tables[5][((crc >> 16) ^ p[2]) & 255] ^ tables[4][(crc >> 24) ^ p[3]] ^
          tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^ tables[0][p[7]];
  }
  for (; length > 0; p++, length--) crc = (crc >> 8) ^ tables[0][(crc ^ *p) & 255];
  return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc_hardware(uint32_t crc,
                                                               const unsigned char *p,
                                                               size_t length) {
  uint64_t wide = crc;
  for (; length >= 8; p += 8, length -= 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  crc = (uint32_t)wide;
  for (; length > 0; p++, length--) crc = _mm_crc32_u8(crc, *p);
  return crc;
}

static bool has_hardware(void) { return __builtin_cpu_supports("sse4.2"); }
#else
#define crc_hardware crc_software
static bool has_hardware(void) { return false; }
#endif

uint32_t crc32c(uint32_t seed, const void *data, size_t length) {
  return ~(has_hardware() ? crc_hardware : crc_software)(~seed, data, length);
}
