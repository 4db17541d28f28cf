/* Included last: runs the grid CTA by CTA, and each CTA warp by warp, from barrier to barrier. */
static struct Warp WARPS[32];

/* Runs a warp to a barrier (1) or to its end (0). */
FAST static int go(struct Warp *w) {
  uint64_t steps = 0;
  w->at_barrier = 0;
  for (;;) {
    uint32_t low = END, mask = 0, live = 0;
    for (uint32_t l = 0; l < 32; l++) {
      if (w->pc[l] == END) continue;
      live |= 1u << l;
      if (w->at_barrier >> l & 1) continue;
      if (w->pc[l] < low) { low = w->pc[l]; mask = 0; }
      if (w->pc[l] == low) mask |= 1u << l;
    }
    if (!live) return 0;
    if (!mask) {
      if (w->at_barrier != 0xffffffffu) fault(BAR_DIVERGED, 0, w->first, w->at_barrier);
      return 1;
    }
    if (++steps > 20000000) { fault(ENDLESS, 0, w->first, low); return 0; }
    RUN[low](w, mask);
    if (J->counting) settle(ISSUED[low]);
  }
}

FAST static void cta(void) {
  uint32_t n = J->warps;
  EPOCH++;
  memset(SINIT, 0, J->smem);
  for (uint32_t i = 0; i < J->smem; i++) S[i] = (uint8_t)POISON32;
  for (uint32_t k = 0; k < n; k++) {
    struct Warp *w = &WARPS[k];
    fill(w);
    w->first = 32 * k;
    memset(w->pc, 0, sizeof w->pc);
  }
  for (;;) {
    uint32_t waiting = 0, done = 0;
    for (uint32_t k = 0; k < n; k++) {
      struct Warp *w = &WARPS[J->reverse ? n - 1 - k : k];
      if (go(w)) waiting++; else done++;
    }
    if (!waiting) return;
    if (done) fault(BAR_DIVERGED, 1, 0, done);
    EPOCH++;
  }
}

void launch(Job *job) {
  J = job; PARAM = (const uint8_t *)job->params; LAST = 0;
  POISON32 = job->poison; POISON64 = (uint64_t)job->poison << 32 | job->poison; POISON16 = job->poison;
  CONTRACT = job->contract; EPS = job->eps;
  uint64_t total = (uint64_t)job->grid[0] * job->grid[1] * job->grid[2];
  if (job->only) total = job->nonly;
  for (uint64_t c = 0; c < total; c++) {
    uint64_t id = job->only ? job->only[c] : job->reverse ? total - 1 - c : c;
    CTA[0] = id % job->grid[0]; CTA[1] = id / job->grid[0] % job->grid[1]; CTA[2] = id / job->grid[0] / job->grid[1];
    CTAID = (uint32_t)id;
    cta();
    end_cta();
  }
}
