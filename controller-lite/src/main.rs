//! The controller's program: which subcommand, and the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use controller_lite::inventory::command::{self, InventoryArgs};
use controller_lite::reconcile::run;

/// Converts VMs of vSphere, Xen, OVAs and disk images into KubeVirt VMs, from Plans in a cluster.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Install the kinds, and look at them:
  controller-lite crds | kubectl apply --server-side -f -
  kubectl explain plan.spec.vms
  kubectl get v2v -A            # all Providers and Plans

docs/operations.md has a whole example: Secret, Provider and Plan.";

#[derive(Subcommand)]
enum Command {
    /// Print the CRDs of Provider and Plan as YAML, for `kubectl apply -f -`
    Crds,
    /// Show the VMs of a vCenter or an ESXi host, as the controller sees them
    Inventory(Box<InventoryArgs>),
    /// Run the controller: Plans become volumes, conversion pods and VMs
    Run(run::Options),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crds => crds(),
        Command::Inventory(args) => inventory(&args),
        Command::Run(options) => run(options),
    }
}

fn crds() -> ExitCode {
    let written = controller_lite::crds::yaml()
        .map_err(|error| error.to_string())
        .and_then(|yaml| std::io::stdout().write_all(yaml.as_bytes()).map_err(|e| e.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("controller-lite: the CRDs could not be printed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn inventory(args: &InventoryArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = runtime
        .map_err(|error| (error.to_string(), None))
        .and_then(|r| r.block_on(command::run(args)).map_err(|e| (whole(&e), e.advice())));
    match shown {
        Ok(text) => {
            // Whoever does not want to read the rest is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err((error, advice)) => {
            eprintln!("error: {error}");
            if let Some(advice) = advice {
                eprintln!("try: {advice}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(options: run::Options) -> ExitCode {
    tracing_subscriber::fmt().json().with_writer(std::io::stdout).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(run::run(options)).map_err(|error| whole(&error)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the controller ends");
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", whole(cause)),
        None => error.to_string(),
    }
}
