//! One decoder layer that can be trained: its parameters, and its forward and backward pass with every operand bound.

use super::activations::Activations;
use super::parameter::{Parameter, Source};
use super::shared::Shared;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::Config;
use crate::error::Result;
use crate::gpu::{Device, KernelPlan, Pass};
use crate::model::attention_shape;
use crate::ops::gradients::{
    Accumulate, ColumnSum, GainGradients, InputGradient, PackedAttention, PackedAttentionGradient, RmsNormGradient,
    RopeGradient, Swiglu, SwigluGradient, WeightGradient,
};
use crate::ops::{Epilogue, Matmul, Phase, RmsNorm, Rope, RopeGains, RowRange, Tensor};

/// Parameters of a layer, all of which are trained.
pub struct LayerParameters {
    attention_norm: Parameter,
    qkv: Parameter,
    qkv_bias: Option<Parameter>,
    /// Gains for q and k.
    head_norm: Option<[Parameter; 2]>,
    output: Parameter,
    feed_forward_norm: Parameter,
    /// Gates, then ups.
    gate_up: Parameter,
    down: Parameter,
}

impl LayerParameters {
    /// Reads layer `from` of `checkpoint`, which becomes layer `to` of the draft.
    ///
    /// # Errors
    ///
    /// Those of reading the checkpoint; [`crate::Error::OutOfMemory`].
    pub fn read(
        device: &Device,
        plan: &KernelPlan,
        config: &Config,
        checkpoint: &dyn Checkpoint,
        [from, to]: [usize; 2],
    ) -> Result<LayerParameters> {
        let [hidden, ffn] = [config.hidden_size, config.feed_forward_size];
        let [queries, keys] = [config.query_size(), config.key_value_size()];
        let source = |part: &str| {
            let [from, to] = [from, to].map(|layer| format!("model.layers.{layer}.{part}"));
            Source { from, to }
        };
        let qkv = |kind: &str| {
            [("q", queries), ("k", keys), ("v", keys)]
                .map(|(part, height)| (source(&format!("self_attn.{part}_proj.{kind}")), height))
                .into()
        };
        let matrix = |tensors, columns| Parameter::matrix(device, plan, checkpoint, tensors, columns);
        let vector = |tensors| Parameter::vector(device, checkpoint, tensors);
        let gain = |part, width| vector(vec![(source(part), width)]);
        let head_norm = match config.head_norm {
            false => None,
            true => Some([
                gain("self_attn.q_norm.weight", config.head_dim)?,
                gain("self_attn.k_norm.weight", config.head_dim)?,
            ]),
        };
        Ok(LayerParameters {
            attention_norm: gain("input_layernorm.weight", hidden)?,
            qkv: matrix(qkv("weight"), hidden)?,
            qkv_bias: config.qkv_bias.then(|| vector(qkv("bias"))).transpose()?,
            head_norm,
            output: matrix(vec![(source("self_attn.o_proj.weight"), hidden)], queries)?,
            feed_forward_norm: gain("post_attention_layernorm.weight", hidden)?,
            gate_up: matrix(vec![(source("mlp.gate_proj.weight"), ffn), (source("mlp.up_proj.weight"), ffn)], hidden)?,
            down: matrix(vec![(source("mlp.down_proj.weight"), hidden)], ffn)?,
        })
    }

    /// In a fixed order.
    pub fn all(&self) -> impl Iterator<Item = &Parameter> {
        let first = [&self.attention_norm, &self.qkv].into_iter().chain(&self.qkv_bias);
        let norms = self.head_norm.iter().flatten();
        first.chain(norms).chain([&self.output, &self.feed_forward_norm, &self.gate_up, &self.down])
    }
}

/// A layer, bound.
pub struct Layer {
    forward: Forward,
    backward: Backward,
}

struct Forward {
    attention_norm: RmsNorm,
    qkv: Matmul,
    rope: Rope,
    attention: PackedAttention,
    output: Matmul,
    feed_forward_norm: RmsNorm,
    gate_up: Matmul,
    swiglu: Swiglu,
    down: Matmul,
}

struct Backward {
    down: Product,
    swiglu: SwigluGradient,
    gate_up: Product,
    feed_forward_norm: RmsNormGradient,
    output: Product,
    attention: PackedAttentionGradient,
    rope: RopeGradient,
    qkv: Product,
    qkv_bias: Option<ColumnSum>,
    attention_norm: RmsNormGradient,
}

/// The gradients of a matrix product, by its weights and by its input.
pub struct Product {
    weights: WeightGradient,
    input: InputGradient,
}

impl Product {
    fn new(
        device: &Device,
        shared: &Shared,
        parameter: &Parameter,
        x: &Tensor,
        [dy, dx]: [&Tensor; 2],
    ) -> Result<Self> {
        let (matrix, gradients) = parameter.as_matrix();
        Ok(Product {
            weights: WeightGradient::new(device, &shared.step, matrix, [x, dy], gradients)?,
            input: InputGradient::new(device, &shared.step, matrix, [dy, dx], Accumulate::Store, RowRange::All)?,
        })
    }

    fn encode(&self, pass: &mut Pass, rows: usize) {
        self.weights.encode(pass, rows);
        self.input.encode(pass, rows);
    }
}

impl Layer {
    /// Binds a layer that reads `input` and writes `result`, rows of the residual stream.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Compile`] if a kernel does not compile.
    pub fn new(
        device: &Device,
        plan: &KernelPlan,
        config: &Config,
        shared: &Shared,
        parameters: &LayerParameters,
        a: &Activations,
        [input, result]: [&Tensor; 2],
    ) -> Result<Layer> {
        let (step, shape) = (&shared.step, attention_shape(config));
        let epsilon = config.norm_epsilon as f32;
        let norm = |x: [&Tensor; 2], gain: &Parameter| {
            RmsNorm::new(device, step, x, gain.as_vector()[0], epsilon, RowRange::All)
        };
        let matmul = |parameter: &Parameter, rows: [&Tensor; 2], finish: Epilogue| {
            Matmul::new(device, plan, step, parameter.as_matrix().0, rows, finish, RowRange::All)
        };
        let bias = parameters.qkv_bias.as_ref().map_or(Epilogue::Store, |bias| Epilogue::Bias(bias.as_vector()[0]));
        let gains = parameters.head_norm.as_ref().map(|[query, key]| RopeGains {
            query: query.as_vector()[0],
            key: key.as_vector()[0],
            epsilon,
        });
        let forward = Forward {
            attention_norm: norm([input, &a.normed], &parameters.attention_norm)?,
            qkv: matmul(&parameters.qkv, [&a.normed, &a.qkv], bias)?,
            rope: Rope::new(device, step, &shape, &shared.angles, [&a.qkv, &a.query], &a.cache, gains)?,
            attention: PackedAttention::new(
                device,
                step,
                &shape,
                &shared.rows,
                &a.cache,
                [&a.query, &a.attended],
                &a.log_sums,
            )?,
            output: matmul(&parameters.output, [&a.attended, &a.middle], Epilogue::Residual(input))?,
            feed_forward_norm: norm([&a.middle, &a.middle_normed], &parameters.feed_forward_norm)?,
            gate_up: matmul(&parameters.gate_up, [&a.middle_normed, &a.gate_up], Epilogue::Store)?,
            swiglu: Swiglu::new(device, [&a.gate_up, &a.gated])?,
            down: matmul(&parameters.down, [&a.gated, result], Epilogue::Residual(&a.middle))?,
        };

        let d = &shared.gradients;
        let norm = |x: &Tensor, gain: &Parameter| {
            let [gain, gradient] = gain.as_vector();
            RmsNormGradient::new(device, step, x, gain, epsilon, [&d.normed, &d.hidden], gradient, RowRange::All)
        };
        let product = |parameter, x, rows| Product::new(device, shared, parameter, x, rows);
        let head_norm = parameters.head_norm.as_ref().map(|[query, key]| {
            let ([query, query_gradient], [key, key_gradient]) = (query.as_vector(), key.as_vector());
            GainGradients { qkv: &a.qkv, gains: [query, key], gradients: [query_gradient, key_gradient], epsilon }
        });
        let bias_sum = |bias: &Parameter| ColumnSum::new(device, step, &d.qkv, &bias.as_vector()[1].buffer);
        let backward = Backward {
            down: product(&parameters.down, &a.gated, [&d.hidden, &d.gated])?,
            swiglu: SwigluGradient::new(device, [&a.gate_up, &d.gated, &d.gate_up])?,
            gate_up: product(&parameters.gate_up, &a.middle_normed, [&d.gate_up, &d.normed])?,
            feed_forward_norm: norm(&a.middle, &parameters.feed_forward_norm)?,
            output: product(&parameters.output, &a.attended, [&d.hidden, &d.attended])?,
            attention: PackedAttentionGradient::new(
                device,
                step,
                &shape,
                &shared.rows,
                &a.cache,
                [&a.query, &a.attended],
                &a.log_sums,
                &d.attended,
                [&d.query, &d.key, &d.value],
            )?,
            rope: RopeGradient::new(
                device,
                step,
                &shape,
                &shared.angles,
                [&d.query, &d.key, &d.value],
                &d.qkv,
                head_norm,
            )?,
            qkv: product(&parameters.qkv, &a.normed, [&d.qkv, &d.normed])?,
            qkv_bias: parameters.qkv_bias.as_ref().map(bias_sum).transpose()?,
            attention_norm: norm(input, &parameters.attention_norm)?,
        };
        Ok(Layer { forward, backward })
    }

    /// Records the forward pass of `rows` rows.
    ///   n = RMSNorm(h);  m = h + Wₒ · Attention(RoPE(W_q·n), RoPE(W_k·n), W_v·n)
    ///   n = RMSNorm(m);  h' = m + W_down · (SiLU(W_gate·n) ⊙ (W_up·n))
    ///
    /// # Errors
    ///
    /// [`crate::Error::Compile`] if a kernel does not compile.
    pub fn forward(&self, pass: &mut Pass, rows: usize) -> Result<()> {
        let layer = &self.forward;
        layer.attention_norm.encode(pass, rows);
        layer.qkv.encode(pass, Phase::Prefill, rows)?;
        layer.rope.encode(pass, rows);
        layer.attention.encode(pass, rows);
        layer.output.encode(pass, Phase::Prefill, rows)?;
        layer.feed_forward_norm.encode(pass, rows);
        layer.gate_up.encode(pass, Phase::Prefill, rows)?;
        layer.swiglu.encode(pass, rows);
        layer.down.encode(pass, Phase::Prefill, rows)
    }

    /// Records the backward pass of `rows` rows: the gradient of the residual stream, by the layer's result, becomes
    /// that by its input; those of the parameters are added to.
    pub fn backward(&self, pass: &mut Pass, rows: usize) {
        let layer = &self.backward;
        layer.down.encode(pass, rows);
        layer.swiglu.encode(pass, rows);
        layer.gate_up.encode(pass, rows);
        layer.feed_forward_norm.encode(pass, rows);
        layer.output.encode(pass, rows);
        layer.attention.encode(pass, rows);
        layer.rope.encode(pass, rows);
        layer.qkv.encode(pass, rows);
        if let Some(bias) = &layer.qkv_bias {
            bias.encode(pass, rows);
        }
        layer.attention_norm.encode(pass, rows);
    }
}
