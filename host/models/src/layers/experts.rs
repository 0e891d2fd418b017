//! A mixture of experts: a router sends each row to a few gated MLPs and adds what they give.
//!
//! The router is never rounded, whatever the experts are rounded to. Experts take no adapters.

use std::ops::Range;

use candle_core::Tensor;
use kernels::{
    GroupMember, KernelError, LinearInput, PackedLinear, Routing, RoutingRule, expert_combine,
    expert_route, linear_group, silu_mul,
};

use super::loader::Loader;
use crate::{ModelError, Quantization, config};

#[derive(Debug)]
struct Expert {
    gate_proj: PackedLinear,
    up_proj: PackedLinear,
    down_proj: PackedLinear,
}

impl Expert {
    fn load(
        loader: &Loader<'_>,
        path: &str,
        (hidden, inner): (usize, usize),
    ) -> Result<Self, ModelError> {
        let format = loader.options.quantization.map(Quantization::of_layers);
        let product = |name: &str, (inputs, outputs): (usize, usize)| {
            let weight =
                loader.weights.tensor(&format!("{path}.{name}.weight"), &[outputs, inputs])?;
            Ok::<_, ModelError>(PackedLinear::pack(weight, None, format, &loader.options.device)?)
        };
        Ok(Self {
            gate_proj: product("gate_proj", (hidden, inner))?,
            up_proj: product("up_proj", (hidden, inner))?,
            down_proj: product("down_proj", (inner, hidden))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let member = |linear| GroupMember { linear, segments: Vec::new() };
        let members = [member(&self.gate_proj), member(&self.up_proj)];
        let [gate, up] =
            <[Tensor; 2]>::try_from(linear_group(&LinearInput::new(x), &members, &[])?)
                .expect("an output per member");
        self.down_proj.forward(&silu_mul(&gate, &up)?)
    }

    fn bytes(&self) -> usize {
        self.gate_proj.bytes() + self.up_proj.bytes() + self.down_proj.bytes()
    }
}

#[derive(Debug)]
pub(crate) struct Experts {
    router: PackedLinear,
    rule: RoutingRule,
    experts: Vec<Expert>,
}

impl Experts {
    /// Loads the experts at `path`.
    pub(crate) fn load(
        loader: &Loader<'_>,
        path: &str,
        config: &config::Experts,
    ) -> Result<Self, ModelError> {
        let hidden = loader.config.hidden_size;
        let router = format!("{path}.gate.weight");
        let router = loader.weights.tensor(&router, &[config.count, hidden])?;
        let expert = |index: usize| {
            let path = format!("{path}.experts.{index}");
            Expert::load(loader, &path, (hidden, config.intermediate_size))
        };
        Ok(Self {
            router: PackedLinear::pack(router, None, None, &loader.options.device)?,
            rule: RoutingRule { per_row: config.per_token, normalised: config.normalised },
            experts: (0..config.count).map(expert).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let routing = expert_route(&self.router.forward(x)?, self.rule)?;
        let gathered = routing.gather(x)?;
        let outputs = self.outputs(&gathered, &routing)?;
        Ok(expert_combine(&outputs, &routing)?)
    }

    /// What each expert makes of its rows.
    fn outputs(&self, gathered: &Tensor, routing: &Routing) -> Result<Tensor, KernelError> {
        let output = |(expert, rows): (usize, Range<usize>)| {
            self.experts[expert].forward(&gathered.narrow(0, rows.start, rows.len())?)
        };
        let outputs = routing.experts().map(output).collect::<Result<Vec<_>, _>>()?;
        match outputs.is_empty() {
            true => Ok(gathered.clone()),
            false => Ok(Tensor::cat(&outputs, 0)?),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.router.bytes() + self.experts.iter().map(Expert::bytes).sum::<usize>()
    }
}
