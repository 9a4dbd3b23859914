//! The `larum` program: command line in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use larum::check::{self, EXIT_BAD_CONFIG};
use larum::cli::{Cli, Command, ConfigArgs};
use larum::config::Config;

/// Covers librdkafka too, whose messages are allocated on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse_from(std::env::args_os());
    // A run begins to log once it knows where its spans go.
    if !matches!(cli.command, Command::Run(_)) {
        larum::logging::start(cli.log_format, None);
    }
    let code = match &cli.command {
        Command::Check(args) => check_only(args),
        Command::Run(args) => match config(&args.config) {
            Ok(config) => finish(block_on(larum::run::run(config, args.reset_state, cli.log_format))),
            Err(code) => code,
        },
        Command::Demo(args) => finish(block_on(larum::demo::run(args))),
        Command::Inspect(args) => {
            let mut of_topic = args.config.clone();
            if of_topic.config.is_none() && of_topic.topics.is_empty() {
                of_topic.topics.push(args.place.topic().to_string());
            }
            match config(&of_topic) {
                Ok(config) => finish(larum::inspect::run(&config, &args.place)),
                Err(code) => code,
            }
        }
        Command::Load(args) => finish(larum::load::run(args)),
    };
    // Kafka clients may wait for their broker when they are dropped. What matters is durable: end here.
    std::process::exit(i32::from(code));
}

fn config(args: &ConfigArgs) -> Result<Config, u8> {
    check::resolve(args.config.as_deref(), &args.overrides()).map_err(|problems| {
        let file = args.config.as_ref().map_or(String::new(), |path| format!("{}: ", path.display()));
        for problem in problems {
            eprintln!("{file}{problem}");
        }
        EXIT_BAD_CONFIG
    })
}

fn check_only(args: &ConfigArgs) -> u8 {
    match config(args) {
        Ok(config) => {
            print!("{}", check::describe(&config));
            0
        }
        Err(code) => code,
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = runtime.block_on(work);
    // Whatever still waits for somebody else, like a collector, is not waited for.
    runtime.shutdown_background();
    result
}

fn finish(result: anyhow::Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("larum: {error:#}");
            1
        }
    }
}
