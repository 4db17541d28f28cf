/* The machine that translated PTX runs on: warps of 32 lanes, the shared memory of a CTA, checked global memory.
   Every translated kernel includes it once, then defines struct Warp, which holds its registers, and its runs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>

enum { OOB_READ, OOB_WRITE, MISALIGNED, SHARED_UNINIT, SHARED_OOB, SHARED_RAW, SHARED_WAR, SHARED_WW, SHARED_LANES,
       CTA_WW, CTA_RAW, CTA_WAR, THREAD_WW, DIV_ZERO, BAR_DIVERGED, LANES_MISSING, CVT_RANGE, ENDLESS, KINDS };
enum { CLASSES = 7 };

typedef struct { uint64_t lo, hi; uint32_t *owner, *reader; uint64_t wrote, read; } Range;
typedef struct { uint64_t count; uint32_t line, cta, tid; uint64_t addr; } Fault;
typedef struct {
  uint64_t params; uint32_t grid[3]; uint32_t warps; uint32_t smem; uint32_t nranges; Range *ranges;
  uint32_t poison; uint32_t reverse; int32_t eps; int32_t contract; uint64_t nonly; const uint64_t *only;
  Fault fault[KINDS];
  uint64_t approx, contracted;
  /* Counted if set: warp instructions by class, and by kind of access (0: global load, 1: global store, 2: shared load,
     3: shared store) warp accesses and 32-byte sectors, or 4-byte wavefronts of 32 banks in shared memory. */
  uint32_t counting; uint64_t issued[CLASSES], accesses[4], parts[4], touched;  /* touched: sectors, once per CTA */
} Job;

#define FAST __attribute__((optimize("O2")))

static Job *J;
static const uint8_t *PARAM;
static uint32_t CTA[3], CTAID, POISON32;
static uint64_t POISON64;
static uint16_t POISON16;
static int CONTRACT, EPS;

/* Shared memory, and the threads that accessed each byte since the last barrier (EPOCH counts barriers). */
#define SMAX (232 * 1024)
static uint8_t S[SMAX + 64], SINIT[SMAX + 64];
static uint32_t SW_EPOCH[SMAX], SR_EPOCH[SMAX], SR_WARPS[SMAX];
static uint16_t SW[SMAX], SR[SMAX];
static uint32_t EPOCH = 1;
static uint8_t DUMMY[64];

static void fault(int kind, uint32_t line, uint32_t tid, uint64_t addr) {
  Fault *f = &J->fault[kind];
  if (!f->count++) { f->line = line; f->cta = CTAID; f->tid = tid; f->addr = addr; }
}

/* The accesses of a warp in one run: for each PTX line up to 32 addresses. */
enum { LINES = 512 };
static struct { uint32_t line, kind, n, bytes; uint64_t at[32]; } ACCESS[LINES];
static uint32_t NACCESS, NEXT;

FAST static inline void access(uint32_t kind, uint64_t a, uint32_t n, uint32_t line) {
  if (!J->counting) return;
  /* lanes execute the same lines in the same order, so the search usually ends at once */
  for (uint32_t k = 0; k < NACCESS; k++, NEXT++) {
    if (NEXT >= NACCESS) NEXT = 0;
    if (ACCESS[NEXT].line == line && ACCESS[NEXT].n < 32) { ACCESS[NEXT].at[ACCESS[NEXT].n++] = a; NEXT++; return; }
  }
  if (NACCESS == LINES) abort();
  ACCESS[NACCESS].line = line; ACCESS[NACCESS].kind = kind; ACCESS[NACCESS].bytes = n;
  ACCESS[NACCESS].at[0] = a; ACCESS[NACCESS].n = 1; NACCESS++;
}

/* Sectors that the lanes touch; in shared memory the largest number of words in one bank. */
static uint32_t parts(uint32_t k) {
  uint64_t seen[32 * 8]; uint32_t count = 0, bank[32] = {0}, most = 0;
  uint32_t unit = ACCESS[k].kind < 2 ? 32 : 4;
  for (uint32_t l = 0; l < ACCESS[k].n; l++)
    for (uint64_t u = ACCESS[k].at[l] / unit; u <= (ACCESS[k].at[l] + ACCESS[k].bytes - 1) / unit; u++) {
      uint32_t i = 0;
      while (i < count && seen[i] != u) i++;
      if (i < count) continue;
      seen[count++] = u;
      if (++bank[u % 32] > most) most = bank[u % 32];
    }
  return unit == 32 ? count : most;
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* Global sectors that the CTA touches, each once: what its L1 cache asks the L2 cache for. */
static uint64_t *TOUCHED;
static uint64_t NTOUCHED, ROOM;

static void once(void) {
  uint64_t distinct = 0;
  qsort(TOUCHED, NTOUCHED, sizeof *TOUCHED, ascending);
  for (uint64_t i = 0; i < NTOUCHED; i++)
    if (!i || TOUCHED[i] != TOUCHED[distinct - 1]) TOUCHED[distinct++] = TOUCHED[i];
  NTOUCHED = distinct;
}

static void touch(uint32_t k) {
  for (uint32_t l = 0; ACCESS[k].kind < 2 && l < ACCESS[k].n; l++)
    for (uint64_t u = ACCESS[k].at[l] / 32; u <= (ACCESS[k].at[l] + ACCESS[k].bytes - 1) / 32; u++) {
      if (NTOUCHED && TOUCHED[NTOUCHED - 1] == u) continue;
      if (NTOUCHED == ROOM) {
        if (ROOM) once();
        if (2 * NTOUCHED >= ROOM) TOUCHED = realloc(TOUCHED, (ROOM = 2 * ROOM + (1 << 16)) * sizeof *TOUCHED);
      }
      TOUCHED[NTOUCHED++] = u;
    }
}

static void end_cta(void) {
  if (!J->counting) return;
  once();
  J->touched += NTOUCHED;
  NTOUCHED = 0;
}

static void settle(const uint16_t *classes) {
  for (int c = 0; c < CLASSES; c++) J->issued[c] += classes[c];
  for (uint32_t k = 0; k < NACCESS; k++) {
    J->accesses[ACCESS[k].kind]++;
    J->parts[ACCESS[k].kind] += parts(k);
    touch(k);
  }
  NACCESS = NEXT = 0;
}

static Range *LAST;
FAST static inline Range *find(uint64_t a, uint32_t n) {
  if (LAST && a >= LAST->lo && a + n <= LAST->hi) return LAST;
  for (uint32_t i = 0; i < J->nranges; i++)
    if (a >= J->ranges[i].lo && a + n <= J->ranges[i].hi) return LAST = &J->ranges[i];
  return 0;
}

FAST static inline const uint8_t *gload(uint64_t a, uint32_t n, uint32_t line, uint32_t tid) {
  if (a & (n - 1)) fault(MISALIGNED, line, tid, a);
  access(0, a, n, line);
  Range *r = find(a, n);
  if (!r) { fault(OOB_READ, line, tid, a); memset(DUMMY, POISON16, 64); return DUMMY; }
  r->read = 1;
  if (r->wrote && r->owner) {
    uint32_t *o = r->owner + (a - r->lo);
    for (uint32_t i = 0; i < n; i++) if (o[i] && (o[i] >> 11) != CTAID + 1) { fault(CTA_RAW, line, tid, a); break; }
  }
  if (r->reader) {
    uint32_t *o = r->reader + (a - r->lo);
    for (uint32_t i = 0; i < n; i++) o[i] = o[i] && o[i] != CTAID + 1 ? 0xffffffffu : CTAID + 1;
  }
  return (const uint8_t *)a;
}

FAST static void gstore(uint64_t a, const void *v, uint32_t n, uint32_t line, uint32_t tid) {
  if (a & (n - 1)) fault(MISALIGNED, line, tid, a);
  access(1, a, n, line);
  Range *r = find(a, n);
  if (!r) { fault(OOB_WRITE, line, tid, a); return; }
  r->wrote = 1;
  if (!r->owner) { memcpy((void *)a, v, n); return; }
  uint32_t *o = r->owner + (a - r->lo), me = (CTAID + 1) << 11 | (tid + 1);
  const uint8_t *p = v, *q = (const uint8_t *)a;
  for (uint32_t i = 0; i < n; i++) {
    if (o[i] && o[i] != me) {
      if ((o[i] >> 11) != CTAID + 1) fault(CTA_WW, line, tid, a);
      else if (p[i] != q[i]) fault(THREAD_WW, line, tid, a);
    }
    o[i] = me;
  }
  if (r->reader) {
    uint32_t *d = r->reader + (a - r->lo);
    for (uint32_t i = 0; i < n; i++) if (d[i] && d[i] != CTAID + 1) { fault(CTA_WAR, line, tid, a); break; }
  }
  memcpy((void *)a, v, n);
}

FAST static void sload(uint64_t a64, void *v, uint32_t n, uint32_t line, uint32_t tid) {
  uint32_t a = (uint32_t)a64;
  if (a % n) fault(MISALIGNED, line, tid, a64);
  access(2, a64, n, line);
  if (a64 + n > J->smem) { fault(SHARED_OOB, line, tid, a64); memset(v, POISON16, n); return; }
  for (uint32_t i = a; i < a + n; i++) {
    if (!SINIT[i]) { fault(SHARED_UNINIT, line, tid, i); }
    if (SW_EPOCH[i] == EPOCH && SW[i] != tid + 1) fault((SW[i] - 1) / 32 == tid / 32 ? SHARED_LANES : SHARED_RAW, line, tid, i);
    if (SR_EPOCH[i] != EPOCH) { SR_EPOCH[i] = EPOCH; SR_WARPS[i] = 0; }
    SR_WARPS[i] |= 1u << (tid / 32); SR[i] = tid + 1;
  }
  memcpy(v, S + a, n);
}

FAST static void sstore(uint64_t a64, const void *v, uint32_t n, uint32_t line, uint32_t tid) {
  uint32_t a = (uint32_t)a64;
  if (a % n) fault(MISALIGNED, line, tid, a64);
  access(3, a64, n, line);
  if (a64 + n > J->smem) { fault(SHARED_OOB, line, tid, a64); return; }
  const uint8_t *p = v;
  for (uint32_t i = a; i < a + n; i++) {
    if (SW_EPOCH[i] == EPOCH && SW[i] != tid + 1 && S[i] != p[i - a])
      fault((SW[i] - 1) / 32 == tid / 32 ? SHARED_LANES : SHARED_WW, line, tid, i);
    if (SR_EPOCH[i] == EPOCH) {
      if (SR_WARPS[i] & ~(1u << (tid / 32))) fault(SHARED_WAR, line, tid, i);
      else if (SR[i] != tid + 1) fault(SHARED_LANES, line, tid, i);
    }
    SW_EPOCH[i] = EPOCH; SW[i] = tid + 1; SINIT[i] = 1; S[i] = p[i - a];
  }
}

/* Atomic addition; returns the old value. Threads may add to one word between two barriers, but not mix it with loads
   and stores of others. */
#define ADDED 0xffff
FAST static uint32_t sadd(uint64_t a64, uint32_t v, uint32_t line, uint32_t tid) {
  uint32_t a = (uint32_t)a64, old;
  if (a % 4) fault(MISALIGNED, line, tid, a64);
  if (a64 + 4 > J->smem) { fault(SHARED_OOB, line, tid, a64); return POISON32; }
  for (uint32_t i = a; i < a + 4; i++) {
    if (!SINIT[i]) fault(SHARED_UNINIT, line, tid, i);
    if (SW_EPOCH[i] == EPOCH && SW[i] != ADDED && SW[i] != tid + 1) fault(SHARED_WW, line, tid, i);
    if (SR_EPOCH[i] == EPOCH && SR[i] != tid + 1) fault(SHARED_WAR, line, tid, i);
    SW_EPOCH[i] = EPOCH; SW[i] = ADDED;
  }
  memcpy(&old, S + a, 4);
  v += old;
  memcpy(S + a, &v, 4);
  return old;
}

#include "arithmetic.h"
