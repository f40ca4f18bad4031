//! The shop's one binary: its services one by one or all in one process, and what plays with them and checks them.
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

pub mod backup;
pub mod chaos;
pub mod check;
pub mod data;
pub mod demo;
mod demo_load;
mod dice;
mod disk;
pub mod forward;
pub mod gateway;
pub mod health;
mod ledger;
pub mod load;
pub mod ports;
mod restart;
pub mod serve;
pub mod stock;
pub mod trickle;
pub mod tryout;
pub mod up;
pub mod whole;
mod wire;

#[cfg(test)]
mod tests {
    use clap::Args;

    /// What the command line gives when nothing is said.
    fn unsaid<A: Args>() -> A {
        let command = A::augment_args(clap::Command::new("shop"));
        A::from_arg_matches(&command.get_matches_from(["shop"])).unwrap()
    }

    #[test]
    fn the_command_line_and_the_code_have_the_same_defaults() {
        let gateway = unsaid::<crate::gateway::Settings>();
        assert_eq!(format!("{gateway:?}"), format!("{:?}", crate::gateway::Settings::default()));
        let load = unsaid::<crate::load::Options>();
        assert_eq!(format!("{load:?}"), format!("{:?}", crate::load::Options::default()));
        let check = unsaid::<crate::check::Options>();
        // The environment may name a broker.
        let default = crate::check::Options { nats_url: check.nats_url.clone(), ..crate::check::Options::default() };
        assert_eq!(format!("{check:?}"), format!("{default:?}"));
    }
}
