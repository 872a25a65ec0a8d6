//! `--state`: what a rule remembers of earlier requests.

use anyhow::bail;
use weir_engine::breaker::cell::State as BreakerState;
use weir_engine::core::headers::HeaderMap;

use crate::proxy::{Module, Proxy};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub rule: String,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Tokens(u64),
    Breaker(BreakerState),
    Tripped,
}

impl State {
    pub fn parse(text: &str) -> Result<State, String> {
        let wrong = || {
            "must be a rule and its state, such as per-user=3, payments=open or canary=tripped"
                .to_string()
        };
        let (rule, value) = text.split_once('=').ok_or_else(wrong)?;
        let value = match value {
            "closed" => Value::Breaker(BreakerState::Closed),
            "open" => Value::Breaker(BreakerState::Open),
            "half-open" | "half_open" => Value::Breaker(BreakerState::HalfOpen),
            "tripped" => Value::Tripped,
            tokens => Value::Tokens(tokens.parse().map_err(|_| wrong())?),
        };
        Ok(State { rule: rule.into(), value })
    }

    pub fn module(&self) -> Module {
        match self.value {
            Value::Tokens(_) => Module::Limit,
            Value::Breaker(_) => Module::Breaker,
            Value::Tripped => Module::Color,
        }
    }

    /// Makes it so, where the state is one of this module's. `headers` are those that it will see.
    pub fn apply(
        &self,
        module: Module,
        proxy: &mut Proxy,
        headers: &HeaderMap,
    ) -> anyhow::Result<()> {
        if self.module() != module {
            return Ok(());
        }
        let Proxy { ports, limiter, breaker, painter, limit_worker, breaker_worker, .. } = proxy;
        let rule = &self.rule;
        let is_set = match self.value {
            Value::Tokens(tokens) => limiter
                .as_ref()
                .is_some_and(|it| it.leave(rule, tokens, limit_worker, headers, ports)),
            Value::Breaker(state) => breaker
                .as_ref()
                .is_some_and(|it| it.put(rule, state, breaker_worker, headers, ports)),
            Value::Tripped => painter.as_ref().is_some_and(|it| it.trip(rule)),
        };
        if !is_set {
            let what = match module {
                Module::Color => "no rule with a guard",
                _ => "no rule for which this request has a key",
            };
            bail!("--state {rule}: {} has {what} of that name", module.section());
        }
        Ok(())
    }
}
