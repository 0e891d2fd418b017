//! A mixture of experts: a router sends each row to a few gated MLPs and adds what they give.
//!
//! The router is never rounded, whatever the experts are rounded to. Experts take no adapters.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::Tensor;
use kernels::{
    Communicator, GroupMember, KernelError, LinearInput, PackedLinear, Routing, RoutingRule,
    expert_combine, expert_route, for_tasks, linear_group, silu_mul,
};

use super::loader::Loader;
use crate::{ModelError, config};

/// Experts that keep the threads busy beside each other, and the share of all rows, one in so many, that
/// the largest of them may have.
const APART_MIN: usize = 8;

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
        let product = |name: &str, (inputs, outputs): (usize, usize)| {
            let sizes = [outputs, inputs];
            let cut = loader.split.expert_cut(loader.config, name, sizes);
            loader.product(&format!("{path}.{name}.weight"), (sizes, &cut), None)
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
    /// Whose sums are added up: each has some columns of every expert.
    ranks: Option<Arc<dyn Communicator>>,
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
            ranks: loader.ranks.cloned(),
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let routing = expert_route(&self.router.forward(x)?, self.rule)?;
        let gathered = routing.gather(x)?;
        let outputs = self.outputs(&gathered, &routing)?;
        let combined = expert_combine(&outputs, &routing)?;
        match &self.ranks {
            Some(ranks) => Ok(ranks.all_reduce(combined)?),
            None => Ok(combined),
        }
    }

    /// What each expert makes of its rows.
    fn outputs(&self, gathered: &Tensor, routing: &Routing) -> Result<Tensor, KernelError> {
        let chosen: Vec<(usize, Range<usize>)> = routing.experts().collect();
        if chosen.is_empty() {
            return Ok(gathered.clone());
        }
        let mut outputs: Vec<OnceLock<Result<Tensor, KernelError>>> = Vec::new();
        outputs.resize_with(chosen.len(), OnceLock::new);
        let run = |place: usize| {
            let (expert, rows) = &chosen[place];
            let rows = gathered.narrow(0, rows.start, rows.len());
            let output = rows.map_err(Into::into).and_then(|x| self.experts[*expert].forward(&x));
            // Nobody else has this place.
            let _ = outputs[place].set(output);
        };
        let apart = apart(&chosen, gathered.device().is_cpu());
        // Each alone on a thread costs one round of the pool for all of them.
        for_tasks(apart.len(), |index| run(apart[index]));
        // What is too large for that is shared out over the threads, one after another.
        (0..chosen.len()).filter(|place| !apart.contains(place)).for_each(run);
        let outputs = outputs.into_iter().map(|output| output.into_inner().expect("all have run"));
        Ok(Tensor::cat(&outputs.collect::<Result<Vec<_>, _>>()?, 0)?)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.router.bytes() + self.experts.iter().map(Expert::bytes).sum::<usize>()
    }
}

/// Places of the experts that run beside each other, largest first, so that none is the last for long:
/// those with at most a share of all rows, where there are enough of them.
fn apart(chosen: &[(usize, Range<usize>)], is_cpu: bool) -> Vec<usize> {
    let rows: usize = chosen.iter().map(|(_, rows)| rows.len()).sum();
    let is_small = |rows: usize, all: usize| rows * APART_MIN <= all;
    let mut places: Vec<usize> =
        (0..chosen.len()).filter(|place| is_small(chosen[*place].1.len(), rows)).collect();
    if !is_cpu || places.len() < APART_MIN {
        return Vec::new();
    }
    places.sort_by_key(|place| std::cmp::Reverse(chosen[*place].1.len()));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_experts_do_not_run_beside_others() {
        let check = |lengths: &[usize], expected: &[usize]| {
            let mut end = 0;
            let mut range = |length: &usize| {
                end += length;
                end - length..end
            };
            let chosen: Vec<_> = lengths.iter().map(&mut range).enumerate().collect();
            assert_eq!(apart(&chosen, true), expected, "{lengths:?}");
            assert!(apart(&chosen, false).is_empty(), "a device has its own threads");
        };
        check(&[], &[]);
        check(&[1], &[]);
        check(&[1; 7], &[]);
        check(&[1; 8], &[0, 1, 2, 3, 4, 5, 6, 7]);
        check(&[1, 1, 1, 1, 1, 1, 1, 2], &[]);
        check(&[1, 1, 1, 1, 1, 1, 1, 1, 2], &[0, 1, 2, 3, 4, 5, 6, 7]);
        check(&[1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 2], &[1, 3, 5, 7, 9, 10, 0, 2, 4, 6, 8]);
    }
}
