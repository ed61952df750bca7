//! Activations of a layer while it is trained, and their gradients.

use crate::checkpoint::config::Config;
use crate::error::Result;
use crate::gpu::{CacheFormat, Device, KernelPlan};
use crate::model::attention_shape;
use crate::ops::{KvCache, Tensor};

/// Activations of a layer's forward pass that its backward pass needs, in addition to its input.
pub struct Activations {
    pub normed: Tensor,
    pub qkv: Tensor,
    pub query: Tensor,
    pub cache: KvCache,
    pub attended: Tensor,
    pub log_sums: Tensor,
    /// The residual stream between attention and feed-forward.
    pub middle: Tensor,
    pub middle_normed: Tensor,
    pub gate_up: Tensor,
    pub gated: Tensor,
}

impl Activations {
    /// Room for `rows` rows.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OutOfMemory`], [`crate::Error::Limit`].
    pub fn new(device: &Device, plan: &KernelPlan, config: &Config, rows: usize) -> Result<Activations> {
        let shape = attention_shape(config);
        let tensor = |label, width| Tensor::new(device, label, rows, width);
        Ok(Activations {
            normed: tensor("normed", config.hidden_size)?,
            qkv: tensor("qkv", shape.qkv_width())?,
            query: tensor("query", config.query_size())?,
            cache: KvCache::new(device, &KernelPlan { cache: CacheFormat::F32, ..*plan }, &shape, rows)?,
            attended: tensor("attended", config.query_size())?,
            log_sums: tensor("log sums", config.heads)?,
            middle: tensor("middle", config.hidden_size)?,
            middle_normed: tensor("middle normed", config.hidden_size)?,
            gate_up: tensor("gate and up", 2 * config.feed_forward_size)?,
            gated: tensor("gated", config.feed_forward_size)?,
        })
    }

    /// Device memory that they take for `rows` rows.
    pub fn bytes(config: &Config, rows: usize) -> u64 {
        let width = 3 * config.hidden_size
            + attention_shape(config).qkv_width()
            + 2 * config.query_size()
            + 2 * config.key_value_size()
            + config.heads
            + 3 * config.feed_forward_size;
        (4 * rows * width) as u64
    }
}

/// Gradients of one layer's activations, shared by all layers: one is done before the next begins.
pub struct ActivationGradients {
    /// Gradient of the residual stream.
    pub hidden: Tensor,
    pub normed: Tensor,
    pub qkv: Tensor,
    pub query: Tensor,
    pub key: Tensor,
    pub value: Tensor,
    pub attended: Tensor,
    pub gate_up: Tensor,
    pub gated: Tensor,
}

impl ActivationGradients {
    /// Room for `rows` rows.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OutOfMemory`], [`crate::Error::Limit`].
    pub fn new(device: &Device, config: &Config, rows: usize) -> Result<ActivationGradients> {
        let tensor = |label, width| Tensor::new(device, label, rows, width);
        Ok(ActivationGradients {
            hidden: tensor("hidden gradient", config.hidden_size)?,
            normed: tensor("normed gradient", config.hidden_size)?,
            qkv: tensor("qkv gradient", attention_shape(config).qkv_width())?,
            query: tensor("query gradient", config.query_size())?,
            key: tensor("key gradient", config.key_value_size())?,
            value: tensor("value gradient", config.key_value_size())?,
            attended: tensor("attended gradient", config.query_size())?,
            gate_up: tensor("gate and up gradient", 2 * config.feed_forward_size)?,
            gated: tensor("gated gradient", config.feed_forward_size)?,
        })
    }
}
