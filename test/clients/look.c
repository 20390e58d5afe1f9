/*
 * Looks at one aligned word of a mapped file as fast as it can, and prints the values it has had.
 *
 *     look FILE OFFSET SECONDS
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define VALUES 64
#define LOOKS 100000

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int count, char **words) {
  if (count != 4) return 2;
  int fd = open(words[1], O_RDONLY);
  void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  if (fd < 0 || page == MAP_FAILED) return 1;
  const volatile uint64_t *word = (const volatile uint64_t *)((char *)page + atoi(words[2]));
  uint64_t seen[VALUES], last = *word + 1;
  int values = 0;
  for (double end = now() + atof(words[3]); now() < end;) {
    for (int i = 0; i < LOOKS; i++) {
      uint64_t value = *word;
      if (value == last) continue;
      last = value;
      int at = 0;
      while (at < values && seen[at] != value) at++;
      if (at == values && values < VALUES) seen[values++] = value;
    }
  }
  for (int i = 0; i < values; i++) printf("%016" PRIx64 "\n", seen[i]);
  return 0;
}
