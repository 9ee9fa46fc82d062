// A convolution as an implicit matrix product, for Hopper (sm_90a): y[m, o] = sum_k x[m + tap, c] w[o, tap, c].
//
// A block makes 16 x (8 PATCHES) positions of one frame times N channels. The copy engine brings a frame's positions with
// their halo once, for CK channels, zeros outside the frame; all KH x KW taps read it there, shifted by a descriptor.
// Frames in front of the piece lie in a tensor of their own, so a stream joins nothing. Weights are packed in the order
// in which they are used, swizzled, so that each stage is one copy. Warps 0-7 multiply, two others bring the inputs.
//
// Given by the compiler: HALF (float16, else bfloat16), N, CK, KT, KH, KW, TH, TW, TPS (taps of a stage of weights), PATCHES,
// LINE, DIL, A_STAGES, B_STAGES; and wgmma(), written out for this N.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;

struct alignas(64) TensorMap { u64 opaque[16]; };

struct Args {
    TensorMap x, past;
    const u16* weight;
    const u16* bias;
    const u16* residual;  // laid out as `out`
    u16* out;
    int frames_in, frames_past, repeat;  // repeat: frames beyond the ends are the first and the last, not zeros
    int pad_t, pad_h, pad_w, stride_t, stride_h, stride_w;
    int batch, frames, height, width, channels;
    int chunks, blocks, blocks_per_group, rows;  // rows: output channels of a packed weight
    int tiles_h, tiles_w, tiles;
    // output channels are groups_t x groups_h x groups_w groups, which are so many positions of the output
    int groups_h, groups_w, group_channels;
    long long out_n, out_t, out_h, out_w, out_c, group_t, group_h, group_w;
};

#define ROW (CK * 2)
#if LINE
#define TILE_H 1
#define TILE_W (128 * PATCHES)
#define GROUP_ROWS (64 * PATCHES)
#define PATCH_ROWS 64
#define STEP_ROWS 8
#else
#define TILE_H 16
#define TILE_W (8 * PATCHES)
#define GROUP_ROWS (8 * PITCH)
#define PATCH_ROWS 8
#define STEP_ROWS PITCH
#endif
#define PITCH (TILE_W + (KW - 1) * DIL)
#define A_BYTES ((TILE_H + KH - 1) * PITCH * ROW)
#define A_STAGE ((A_BYTES + 1023) / 1024 * 1024)
#define TAPS (KH * KW)
#define GROUPS (TAPS / TPS)
#define B_TAP (N * ROW)
#define B_STAGE (TPS * B_TAP)
#define SWIZZLE (CK == 64 ? 1ull : CK == 32 ? 2ull : 3ull)

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void barrier_init(u32 bar, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count));
}
__device__ __forceinline__ void barrier_expect(u32 bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void barrier_wait(u32 bar, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra finished;\n"
        "bra again;\nfinished:\n}\n" ::"r"(bar), "r"(parity) : "memory");
}
__device__ __forceinline__ void copy_box(u32 to, const TensorMap* map, u32 bar, int c, int w, int h, int t, int n) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
        ::"r"(to), "l"(map), "r"(bar), "r"(c), "r"(w), "r"(h), "r"(t), "r"(n) : "memory");
}
__device__ __forceinline__ void copy_bytes(u32 to, const void* from, u32 bytes, u32 bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(bar) : "memory");
}
__device__ __forceinline__ u64 descriptor(u32 address, u32 group_stride) {
    return (u64)((address & 0x3FFFF) >> 4) | (1ull << 16) | ((u64)(group_stride >> 4) << 32) | (SWIZZLE << 62);
}
__device__ __forceinline__ u32 packed(float low, float high) {
    u32 r;
#if HALF
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#endif
    return r;
}
__device__ __forceinline__ void unpacked(u32 r, float& low, float& high) {
#if HALF
    asm("{\n.reg .b16 a, b;\nmov.b32 {a, b}, %2;\ncvt.f32.f16 %0, a;\ncvt.f32.f16 %1, b;\n}" : "=f"(low), "=f"(high) : "r"(r));
#else
    low = __uint_as_float(r << 16);
    high = __uint_as_float(r & 0xFFFF0000u);
#endif
}
__device__ __forceinline__ void add(float* v, const uint4& r) {
    float low, high;
    unpacked(r.x, low, high); v[0] += low; v[1] += high;
    unpacked(r.y, low, high); v[4] += low; v[5] += high;
    unpacked(r.z, low, high); v[8] += low; v[9] += high;
    unpacked(r.w, low, high); v[12] += low; v[13] += high;
}
// 4 x 4 between the lanes of a quad: lane q ends with what the lanes held in their q-th register
__device__ __forceinline__ void transposed(float& a, float& b, float& c, float& d, int q) {
    float s;
    s = __shfl_xor_sync(~0u, q & 1 ? a : b, 1); if (q & 1) a = s; else b = s;
    s = __shfl_xor_sync(~0u, q & 1 ? c : d, 1); if (q & 1) c = s; else d = s;
    s = __shfl_xor_sync(~0u, q & 2 ? a : c, 2); if (q & 2) a = s; else c = s;
    s = __shfl_xor_sync(~0u, q & 2 ? b : d, 2); if (q & 2) b = s; else d = s;
}

struct Tile { int block, w, h, t, n; };

__device__ __forceinline__ Tile tile_of(const Args& args, int i) {
    Tile tile;
    tile.block = i % args.blocks; i /= args.blocks;
    tile.w = i % args.tiles_w * TILE_W; i /= args.tiles_w;
    tile.h = i % args.tiles_h * TILE_H; i /= args.tiles_h;
    tile.t = i % args.frames;
    tile.n = i / args.frames;
    return tile;
}
// where the frame under temporal tap kt lies: its index, negative in `past` (-1 the last); false if it is zeros
__device__ __forceinline__ bool frame_under(const Args& args, int t, int kt, int& frame) {
    frame = t * args.stride_t + kt / (TH * TW) - args.pad_t;
    if (args.repeat) frame = min(max(frame, args.frames_past ? -args.frames_past : 0), args.frames_in - 1);
    return frame >= -args.frames_past && frame < args.frames_in;
}

__device__ __forceinline__ long long group_at(const Args& args, int group) {
    return group / (args.groups_h * args.groups_w) * args.group_t + group / args.groups_w % args.groups_h * args.group_h
         + group % args.groups_w * args.group_w;
}
__device__ __forceinline__ long long origin_of(const Args& args, const Tile& tile) {
    const long long at = tile.n * args.out_n + tile.t * args.out_t;
#if N % 32
    return at;
#else
    return at + group_at(args, tile.block / args.blocks_per_group) + tile.block % args.blocks_per_group * N;
#endif
}
// the residual is read long after it was written: it shall lie in the cache when the sums are ready
__device__ __forceinline__ void fetch_ahead(const Args& args, const Tile& tile) {
    const int columns = min(TILE_W, args.width - tile.w);
    for (int h = tile.h; h < min(tile.h + TILE_H, args.height); h++) {
        const u16* row = args.residual + origin_of(args, tile) + h * args.out_h + tile.w * args.out_w;
        const u32 bytes = args.out_w == N ? columns * N * 2 : N * 2;
        for (int w = 0; w < (args.out_w == N ? 1 : columns); w++)
            asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(row + w * args.out_w), "r"(bytes) : "memory");
    }
}

extern "C" __global__ void __launch_bounds__(384, 1) conv(const __grid_constant__ Args args) {
    extern __shared__ char raw[];
    char* shared = (char*)(((u64)raw + 1023) & ~1023ull);
    const u32 a0 = shared_address(shared), b0 = a0 + A_STAGES * A_STAGE, bars = b0 + B_STAGES * B_STAGE;
    const u32 a_full = bars, a_empty = a_full + 8 * A_STAGES, b_full = a_empty + 8 * A_STAGES, b_empty = b_full + 8 * B_STAGES;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int i = 0; i < A_STAGES; i++) { barrier_init(a_full + 8 * i, 1); barrier_init(a_empty + 8 * i, 8); }
        for (int i = 0; i < B_STAGES; i++) { barrier_init(b_full + 8 * i, 1); barrier_init(b_empty + 8 * i, 8); }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();

    if (warp >= 8) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (warp == 8 && lane == 0) {
            u32 stage = 0, phase = 0;
            for (int i = blockIdx.x; i < args.tiles; i += gridDim.x) {
                const Tile tile = tile_of(args, i);
                if (args.residual) fetch_ahead(args, tile);
                for (int kt = 0; kt < KT; kt++) {
                    int frame;
                    if (!frame_under(args, tile.t, kt, frame)) continue;
                    const TensorMap* map = frame < 0 ? &args.past : &args.x;
                    if (frame < 0) frame += args.frames_past;
                    for (int chunk = 0; chunk < args.chunks; chunk++) {
                        barrier_wait(a_empty + 8 * stage, phase ^ 1);
                        barrier_expect(a_full + 8 * stage, A_BYTES);
                        copy_box(a0 + stage * A_STAGE, map, a_full + 8 * stage, chunk * CK,
                                 tile.w * args.stride_w - args.pad_w + kt % TW,
                                 tile.h * args.stride_h - args.pad_h + kt / TW % TH, frame, tile.n);
                        if (++stage == A_STAGES) { stage = 0; phase ^= 1; }
                    }
                }
            }
        } else if (warp == 9 && lane == 0) {
            u32 stage = 0, phase = 0;
            for (int i = blockIdx.x; i < args.tiles; i += gridDim.x) {
                const Tile tile = tile_of(args, i);
                for (int kt = 0; kt < KT; kt++) {
                    int frame;
                    if (!frame_under(args, tile.t, kt, frame)) continue;
                    const char* from = (const char*)args.weight + ((u64)kt * args.chunks * TAPS * args.rows + tile.block * N) * ROW;
                    for (int g = 0; g < args.chunks * GROUPS; g++) {
                        barrier_wait(b_empty + 8 * stage, phase ^ 1);
                        barrier_expect(b_full + 8 * stage, B_STAGE);
#pragma unroll
                        for (int s = 0; s < TPS; s++, from += args.rows * ROW)
                            copy_bytes(b0 + stage * B_STAGE + s * B_TAP, from, B_TAP, b_full + 8 * stage);
                        if (++stage == B_STAGES) { stage = 0; phase ^= 1; }
                    }
                }
            }
        }
        return;
    }

    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int group = warp / 4, quad = lane % 4;
    u32 a_stage = 0, a_phase = 0, b_stage = 0, b_phase = 0;
    for (int i = blockIdx.x; i < args.tiles; i += gridDim.x) {
        const Tile tile = tile_of(args, i);
        float sum[PATCHES][N / 2];
        int started = 0;
        int held_a = -1, held_b = -1;
        for (int kt = 0; kt < KT; kt++) {
            int frame;
            if (!frame_under(args, tile.t, kt, frame)) continue;
            for (int chunk = 0; chunk < args.chunks; chunk++) {
                barrier_wait(a_full + 8 * a_stage, a_phase);
                const u32 a = a0 + a_stage * A_STAGE + group * GROUP_ROWS * ROW;
#pragma unroll
                for (int g = 0; g < GROUPS; g++) {
                    barrier_wait(b_full + 8 * b_stage, b_phase);
                    const u32 b = b0 + b_stage * B_STAGE;
#pragma unroll
                    for (int p = 0; p < PATCHES; p++)
#pragma unroll
                        for (int r = 0; r < N / 2; r++) asm volatile("" : "+f"(sum[p][r])::"memory");
                    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
                    for (int s = 0; s < TPS; s++) {
                        const int kh = (g * TPS + s) / KW, kw = (g * TPS + s) % KW;
#pragma unroll
                        for (int k = 0; k < CK / 16; k++) {
#pragma unroll
                            for (int p = 0; p < PATCHES; p++)
                                wgmma(sum[p], descriptor(a + (kh * PITCH + p * PATCH_ROWS + kw * DIL) * ROW + k * 32, STEP_ROWS * ROW),
                                      descriptor(b + s * B_TAP + k * 32, 8 * ROW), started);
                            started = 1;
                        }
                    }
                    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#pragma unroll
                    for (int p = 0; p < PATCHES; p++)
#pragma unroll
                        for (int r = 0; r < N / 2; r++) asm volatile("" : "+f"(sum[p][r])::"memory");
                    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                    if (lane == 0) {
                        if (held_b >= 0) barrier_arrive(b_empty + 8 * held_b);
                        if (held_a >= 0) barrier_arrive(a_empty + 8 * held_a);
                    }
                    held_b = b_stage;
                    held_a = g == GROUPS - 1 ? (int)a_stage : -1;
                    if (++b_stage == B_STAGES) { b_stage = 0; b_phase ^= 1; }
                }
                if (++a_stage == A_STAGES) { a_stage = 0; a_phase ^= 1; }
            }
        }
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
        for (int p = 0; p < PATCHES; p++)
#pragma unroll
            for (int r = 0; r < N / 2; r++) asm volatile("" : "+f"(sum[p][r])::"memory");
        if (lane == 0) {
            if (held_b >= 0) barrier_arrive(b_empty + 8 * held_b);
            if (held_a >= 0) barrier_arrive(a_empty + 8 * held_a);
        }

        const long long origin = origin_of(args, tile);
#pragma unroll
        for (int p = 0; p < PATCHES; p++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
#if LINE
                const int h = tile.h, w = tile.w + group * GROUP_ROWS + p * 64 + warp % 4 * 16 + half * 8 + lane / 4;
#else
                const int h = tile.h + group * 8 + warp % 4 * 2 + half, w = tile.w + p * 8 + lane / 4;
#endif
                const bool inside = h < args.height && w < args.width;
                const long long at = origin + h * args.out_h + w * args.out_w;
#if N % 32
#pragma unroll
                for (int j = 0; j < N / 8; j++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        const int c = j * 8 + quad * 2 + e;
                        const int all = tile.block * N + c, within = all % args.group_channels;
                        if (!inside || all >= args.channels) continue;
                        float bias = 0.f, none;
                        if (args.bias) unpacked(args.bias[all], bias, none);
                        args.out[at + within * args.out_c + group_at(args, all / args.group_channels)] = (u16)packed(sum[p][j * 4 + half * 2 + e] + bias, 0.f);
                    }
#else
                uint4 residual[N / 32];
#pragma unroll
                for (int j = 0; j < N / 32; j++) residual[j] = make_uint4(0, 0, 0, 0);
                if (args.residual && inside) {
#pragma unroll
                    for (int j = 0; j < N / 32; j++)
                        residual[j] = __ldcs((const uint4*)(args.residual + at + j * 32 + quad * 8));
                }
#pragma unroll
                for (int j = 0; j < N / 32; j++) {
                    float* v = sum[p] + j * 16 + half * 2;
                    transposed(v[0], v[4], v[8], v[12], quad);
                    transposed(v[1], v[5], v[9], v[13], quad);
                    const int c = j * 32 + quad * 8;
                    if (args.bias) {
                        const uint4 r = __ldg((const uint4*)(args.bias + tile.block * N + c));
                        add(v, r);
                    }
                    add(v, residual[j]);
                    if (inside) {
                        uint4 r;
                        r.x = packed(v[0], v[1]); r.y = packed(v[4], v[5]); r.z = packed(v[8], v[9]); r.w = packed(v[12], v[13]);
                        *(uint4*)(args.out + at + c) = r;
                    }
                }
#endif
            }
        }
    }
}
