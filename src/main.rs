//! The program `twintrack`: its command line.

mod app;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::app::{
    compare, doctor, evaluate, manual, message, refine, search, telemetry, track, tune,
};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use twintrack::source::{Hardware, Transport};

/// Streaming video pedestrian tracker: frames in, trajectories out.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110)]
struct Cli {
    /// Log more to standard error: -v logs the networks, devices and files in use, -vv also
    /// debugging details.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Log format: text, or json (one object per line).
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        global = true
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

impl Command {
    /// FFmpeg's options for the inputs, if the command's differ from the defaults. An invalid
    /// configuration, which the command reports, is left out.
    fn input_options(&self) -> Option<String> {
        let (transport, hardware) = match self {
            #[cfg(feature = "video")]
            Command::Track(args) => {
                let (config, transport) = args.input();
                let config = app::settings::read(config).unwrap_or_default();
                (transport, config.source.hardware)
            }
            #[cfg(feature = "serve")]
            Command::Serve(args) => {
                let (transport, hardware) = args.decoding();
                (Some(transport), hardware)
            }
            _ => (None, Hardware::None),
        };
        let transport = transport.map(Transport::ffmpeg_options);
        let options: Vec<String> = (transport.into_iter())
            .chain(hardware.ffmpeg_options())
            .collect();
        (!options.is_empty()).then(|| options.join("|"))
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Track(Box<track::TrackArgs>),
    #[cfg(feature = "serve")]
    Serve(app::serve::ServeArgs),
    #[cfg(feature = "serve")]
    Fleet(app::fleet::FleetArgs),
    #[cfg(feature = "serve")]
    History(app::history::HistoryArgs),
    #[cfg(feature = "serve")]
    User(app::user::UserArgs),
    #[cfg(feature = "serve")]
    Token(app::token::TokenArgs),
    Refine(refine::RefineArgs),
    Compare(compare::CompareArgs),
    Search(search::SearchArgs),
    Eval(evaluate::EvalArgs),
    Tune(tune::TuneArgs),
    #[cfg(feature = "models")]
    Models(app::models::ModelsArgs),
    #[cfg(feature = "serve")]
    Bench(app::bench::command::BenchArgs),
    Doctor(doctor::DoctorArgs),
    Config(ConfigArgs),
    Completions(manual::CompletionsArgs),
    /// Print the manual page (roff).
    Manual,
}

/// Print the default configuration (TOML).
#[derive(Debug, Args)]
struct ConfigArgs {
    /// Print the JSON Schema of configuration files instead, for editors.
    #[cfg(feature = "serve")]
    #[arg(long)]
    schema: bool,
}

/// Runs `twintrack config`; returns its output.
fn config(args: &ConfigArgs) -> anyhow::Result<String> {
    #[cfg(feature = "serve")]
    if args.schema {
        let schema = twintrack::serve::schema::configuration();
        return Ok(serde_json::to_string_pretty(&schema)?);
    }
    #[cfg(not(feature = "serve"))]
    let ConfigArgs {} = args;
    Ok(toml::to_string(&twintrack::config::Config::default())?)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::disable();
    prepare_libraries(cli.command.input_options());
    let level = ["warn", "info", "debug"][usize::from(cli.verbose.min(2))];
    let filter = EnvFilter::try_from_env("TWINTRACK_LOG")
        // async_nats logs every failed attempt, which the NATS sink logs once for each outage.
        .unwrap_or_else(|_| EnvFilter::new(format!("error,async_nats=off,twintrack={level}")));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match cli.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    let result = match cli.command {
        Command::Track(args) => track::run(*args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => app::serve::run(&args),
        #[cfg(feature = "serve")]
        Command::Fleet(args) => app::fleet::run(&args).map(print),
        #[cfg(feature = "serve")]
        Command::History(args) => app::history::run(&args),
        #[cfg(feature = "serve")]
        Command::User(args) => app::user::run(&args).map(print),
        #[cfg(feature = "serve")]
        Command::Token(args) => app::token::run(&args).map(print),
        Command::Refine(args) => refine::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Compare(args) => compare::run(&args).map(print),
        Command::Search(args) => search::run(&args).map(print),
        Command::Eval(args) => evaluate::run(&args).map(print),
        Command::Tune(args) => tune::run(&args).map(print),
        #[cfg(feature = "models")]
        Command::Models(args) => app::models::run(&args).map(print),
        #[cfg(feature = "serve")]
        Command::Bench(args) => app::bench::command::run(&args, print),
        Command::Doctor(args) => doctor::run(&args).map_err(Into::into).map(|(report, ok)| {
            let printed = print(report);
            if ok { printed } else { ExitCode::FAILURE }
        }),
        Command::Config(args) => config(&args).map(print),
        Command::Completions(args) => manual::completions(&args, Cli::command()).map(print),
        Command::Manual => manual::page(Cli::command()).map(print),
    };
    result.unwrap_or_else(|e| {
        eprintln!("error: {}", message::message(&e));
        ExitCode::FAILURE
    })
}

/// Prints the command's output. A closed pipe (`twintrack doctor | head -1`) is not an error.
fn print(text: String) -> ExitCode {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output: {e}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Disables warnings of OpenCV and FFmpeg, which would be printed in addition to the program's
/// errors, and sets FFmpeg's options for the inputs. Both libraries read these settings only from
/// environment variables; a variable that the user has set is kept.
#[expect(
    unsafe_code,
    reason = "set_var is sound while no other thread runs; main has not started any"
)]
fn prepare_libraries(inputs: Option<String>) {
    let quiet = [
        ("OPENCV_FFMPEG_LOGLEVEL", "-8"),
        ("OPENCV_LOG_LEVEL", "SILENT"),
        ("OPENCV_VIDEOIO_DEBUG", "0"),
    ];
    let inputs = inputs
        .as_deref()
        .map(|options| ("OPENCV_FFMPEG_CAPTURE_OPTIONS", options));
    for (key, value) in quiet.into_iter().chain(inputs) {
        if std::env::var_os(key).is_none() {
            // SAFETY: main has not started any other thread.
            unsafe { std::env::set_var(key, value) }
        }
    }
}
