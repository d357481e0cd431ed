/* norm_presets: the published placements of norms, each a row of keys (normalization spec 1.3), and what
 * `keel bench method` and `keel lab matrix` run. */
#include "model/build.h"
#include "model/methods.h"

/* Where norms stand: around attention, around the feed-forward; q, k, v, context; the feed-forward's hidden
 * values; embedding and final. MORE begins with a space. */
#define ROW(name, attn, ffn, q, k, v, context, hidden, embedding, final, more)                               \
    {                                                                                                        \
        "model.norm.preset", name,                                                                           \
            "model.norm.attn=[" attn "] model.norm.ffn=[" ffn "] model.norm.q=" q " model.norm.k=" k         \
            " model.norm.v=" v " model.norm.context=" context " model.norm.ffn_hidden=" hidden               \
            " model.norm.embedding=" embedding " model.norm.final=" final more                               \
    }
#define NO "none"
#define GAINS_DECAY " train.optimizer.decay=[matrix, head, gain]"

/* HybridNorm: queries, keys and values normed by head, nothing before attention; the feed-forward reads, and
 * is added to, the normed stream. Its star: the first block has pre norms instead. Both need their
 * initialization (spread of the maps back to the stream divided by sqrt(2 layers)); their gains decay. */
#define HYBRID " model.init.kind=megatron" GAINS_DECAY
#define STAR " model.override=[{layers: 0, norm.attn: [pre], norm.ffn: [pre]}]"

/* SDD: every map followed by a norm (values by way of the context), the stream itself normed before each
 * branch; all weights start small, since their scale cancels. As released (0.1 x 1/sqrt(2.5 width)) or as
 * printed (1 x). */
#define SDD_INIT(factor) " model.init.kind=normal model.init.std=auto model.init.std_factor=" factor
#define SDD(gain) " model.norm.out_gain=" gain GAINS_DECAY

const config_preset norm_presets[] = {
    ROW("pre", "pre", "pre", NO, NO, NO, NO, NO, "false", "true", ""),
    ROW("pre_qk", "pre", "pre", "head", "head", NO, NO, NO, "false", "true", ""),
    ROW("post", "post", "post", NO, NO, NO, NO, NO, "false", "false", ""),
    ROW("deepnorm", "post", "post", NO, NO, NO, NO, NO, "false", "false",
        " model.residual.skip_scale=deepnorm model.init.kind=deepnorm"),
    ROW("sandwich", "pre, out", "pre, out", NO, NO, NO, NO, NO, "false", "true", ""),
    ROW("peri", "pre, out", "pre, out", NO, NO, NO, NO, NO, "true", "true", ""),
    ROW("olmo2", "out", "out", "full", "full", NO, NO, NO, "false", "true",
        " model.init.kind=normal model.init.std=0.02 model.head.z_loss=1e-5"),
    ROW("mix", "pre", "pre", NO, NO, NO, NO, NO, "false", "true", ""), // norm.mix_share: post norms first
    ROW("lns", "pre", "pre", NO, NO, NO, NO, NO, "false", "true",
        " model.norm.depth_scale=inv_sqrt model.init.kind=normal"),
    ROW("hybrid", "", "stream", "head", "head", "head", NO, NO, "false", "true", HYBRID),
    ROW("hybrid_star", "", "stream", "head", "head", "head", NO, NO, "false", "true", HYBRID STAR),
    ROW("hybrid_star_7b", "out", "stream", "head", "head", "head", NO, NO, "false", "true",
        " model.norm.out_gain=inv_sqrt_2L" HYBRID STAR),
    ROW("sdd", "stream, out", "stream, out", "head", "head", NO, "full", "fused", "false", "true",
        " model.norm.inner_eps=1e-6" SDD("inv_sqrt_2L") SDD_INIT("0.1")),
    ROW("sdd_official", "stream, out", "stream, out", "head", "head", NO, "full", "fused", "false", "true",
        " model.norm.statistics=native" SDD("inv_sqrt_2L") SDD_INIT("0.1")),
    ROW("sdd_paper", "stream, out", "stream, out", "full", "full", "full", NO, "split", "false", "true",
        " model.norm.inner_eps=1e-6" SDD("inv_sqrt_L") SDD_INIT("1")),
    ROW("sdd_pre", "pre, out", "pre, out", "head", "head", NO, "full", "fused", "false", "true",
        " model.norm.inner_eps=1e-6" SDD("inv_sqrt_2L") SDD_INIT("0.1")),
    ROW("dyt", "pre", "pre", NO, NO, NO, NO, NO, "scale", "true", " model.norm.kind=dyt"),
    ROW("bhyt", "pre", "pre", NO, NO, NO, NO, NO, "false", "true",
        " model.norm.kind=bhyt model.norm.eps=1e-6"),
    {0},
};

const method_row norm_methods[] = {
    {"pre_qk", "norm", .common = true, .settings = "model.norm.preset=pre_qk"},
    {"post", "norm", .common = true, .settings = "model.norm.preset=post"},
    {"deepnorm", "norm", .settings = "model.norm.preset=deepnorm"},
    {"sandwich", "norm", .settings = "model.norm.preset=sandwich"},
    {"peri", "norm", .settings = "model.norm.preset=peri"},
    {"olmo2", "norm", .settings = "model.norm.preset=olmo2"},
    {"mix", "norm", .settings = "model.norm.preset=mix"},
    {"lns", "norm", .settings = "model.norm.preset=lns"},
    {"hybrid", "norm", .settings = "model.norm.preset=hybrid"},
    {"hybrid_star", "norm", .common = true, .settings = "model.norm.preset=hybrid_star"},
    {"hybrid_star_7b", "norm", .settings = "model.norm.preset=hybrid_star_7b"},
    {"sdd", "norm", .common = true, .settings = "model.norm.preset=sdd", .limit = 1.08},
    {"sdd_official", "norm", .settings = "model.norm.preset=sdd_official"},
    {"sdd_paper", "norm", .settings = "model.norm.preset=sdd_paper"},
    {"sdd_pre", "norm", .settings = "model.norm.preset=sdd_pre"},
    {"dyt", "norm", .common = true, .settings = "model.norm.preset=dyt"},
    {"bhyt", "norm", .settings = "model.norm.preset=bhyt"},
    {"layer", "norm", .settings = "model.norm.kind=layer"},
    {"crms", "norm", .settings = "model.norm.kind=crms"},
    {"l1", "norm", .settings = "model.norm.kind=l1"},
    {"gated_norm", "norm", .settings = "model.norm.gate_rank=16"},
    {"pre_affine", "norm", .settings = "model.norm.pre_affine=true"},
    {0},
};
