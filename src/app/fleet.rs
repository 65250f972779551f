//! `twintrack fleet`: the cameras and the workers of a fleet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use twintrack::address::Address;
use twintrack::fleet::buckets::{Fleet, REQUEST};
use twintrack::fleet::overview::FleetOverview;
use twintrack::fleet::records::check_camera;
use twintrack::pipeline::CameraConfigs;
use twintrack::serve::config::ServiceConfig;
use twintrack::source::CameraConfig;

/// Change and list the cameras of a fleet, and see its workers (docs/guide/fleet.md).
#[derive(Debug, Args)]
pub struct FleetArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: FleetCommand,
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// Address of the fleet's NATS server, such as nats://host:4222; several are separated by
    /// commas. Overrides `fleet.nats` of --config.
    #[arg(long, global = true, value_name = "URL")]
    nats: Option<String>,
    /// Configuration of a worker (TOML): `fleet.nats`, and login and TLS files of [nats].
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Make the fleet's cameras those of a file: add, change and remove what differs, and print it.
    Apply {
        /// File (TOML) with a section [cameras.NAME] for each camera.
        file: PathBuf,
        /// Only print what differs.
        #[arg(long)]
        dry_run: bool,
        /// Keep cameras that the file does not have.
        #[arg(long)]
        keep: bool,
    },
    /// Add a camera.
    Add {
        /// Name of the camera: letters, digits, '-', '_' and '.'.
        name: String,
        /// Address of the camera, without login.
        url: String,
        /// User name for the camera's login.
        #[arg(long)]
        user: Option<String>,
        /// Environment variable of the workers that holds the password.
        #[arg(long, value_name = "NAME")]
        password_env: Option<String>,
        /// Label that its worker must have, such as site=north; repeat it for several.
        #[arg(long = "label", value_name = "LABEL")]
        labels: Vec<String>,
        /// Priority, -100 to 100: if capacity is short, cameras of higher priority are
        /// tracked first.
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i32,
        /// Frames per second to process; absent: all.
        #[arg(long, value_name = "RATE")]
        target_fps: Option<f64>,
    },
    /// Remove a camera. Its worker stops it.
    Remove {
        /// Name of the camera.
        name: String,
    },
    /// List the cameras and their workers.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the workers, with their load, and the cameras that no worker has.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command; returns what it prints.
///
/// # Errors
/// When the server cannot be reached, a file or a camera is invalid, or a record cannot be written.
pub fn run(args: &FleetArgs) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let wanted = wanted(&args.command)?; // invalid cameras are reported without a server
        let fleet = args.server.connect().await?;
        match &args.command {
            FleetCommand::Apply { dry_run, keep, .. } => {
                apply(&fleet, &wanted, *dry_run, *keep).await
            }
            FleetCommand::Add { name, .. } => add(&fleet, name, &wanted).await,
            FleetCommand::Remove { name } => remove(&fleet, name).await,
            FleetCommand::List { json } => list(&fleet, *json).await,
            FleetCommand::Status { json } => status(&fleet, *json).await,
        }
    })
}

impl ServerArgs {
    async fn connect(&self) -> Result<Fleet> {
        let service = match &self.config {
            Some(file) => ServiceConfig::read_partial(file)?.0,
            None => ServiceConfig::default(),
        };
        let mut fleet = service.fleet.clone().unwrap_or_default();
        fleet.nats = self.nats.clone().unwrap_or(fleet.nats);
        if fleet.nats.is_empty() {
            bail!(
                "which fleet? Give its NATS server with --nats nats://HOST:4222, or --config FILE"
            );
        }
        Ok(Fleet::connect(&fleet, service.nats.as_ref(), REQUEST).await?)
    }
}

/// The cameras that a command writes.
///
/// # Errors
/// When the file cannot be read or has no camera, or a camera cannot be one of a fleet.
fn wanted(command: &FleetCommand) -> Result<CameraConfigs> {
    let cameras = match command {
        FleetCommand::Apply { file, .. } => cameras_of(file)?,
        FleetCommand::Add {
            name,
            url,
            user,
            password_env,
            labels,
            priority,
            target_fps,
        } => {
            let camera = CameraConfig::default()
                .with_url(Address::new(url))
                .with_user(user.clone())
                .with_password_env(password_env.clone())
                .with_labels(labels.clone())
                .with_priority(*priority)
                .with_target_fps(*target_fps);
            CameraConfigs::from([(name.clone(), camera)])
        }
        _ => CameraConfigs::new(),
    };
    for (name, camera) in &cameras {
        check_camera(name, camera)?;
    }
    Ok(cameras)
}

fn cameras_of(file: &Path) -> Result<CameraConfigs> {
    let cameras = ServiceConfig::read_partial(file)?.0.cameras;
    if cameras.is_empty() {
        bail!(
            "{}: it has no camera; add a section [cameras.NAME]",
            file.display()
        );
    }
    Ok(cameras)
}

/// Makes the fleet's cameras the wanted ones, and returns the differences. With `dry_run` nothing
/// is written; with `keep` cameras that are not wanted stay.
async fn apply(fleet: &Fleet, wanted: &CameraConfigs, dry_run: bool, keep: bool) -> Result<String> {
    let present = fleet.cameras.all(">").await?;
    let (mut out, mut counts) = (String::new(), [0_usize; 3]);
    for (name, camera) in wanted {
        match present.get(name) {
            Some(record) if record.record == *camera => {}
            Some(record) => {
                counts[1] += 1;
                writeln!(out, "~ {name}")?;
                out += &differences(&record.record, camera)?;
                if !dry_run {
                    fleet.cameras.update(name, camera, record.revision).await?;
                }
            }
            None => {
                counts[0] += 1;
                writeln!(out, "+ {name}  {}", camera.url)?;
                if !dry_run {
                    fleet.cameras.create(name, camera).await?;
                }
            }
        }
    }
    for (name, record) in present
        .iter()
        .filter(|(name, _)| !wanted.contains_key(*name) && !keep)
    {
        counts[2] += 1;
        writeln!(out, "- {name}  {}", record.record.url)?;
        if !dry_run {
            fleet.cameras.delete(name, record.revision).await?;
        }
    }
    let [added, changed, removed] = counts;
    let verb = if dry_run { "would be" } else { "were" };
    writeln!(
        out,
        "{added} cameras {verb} added, {changed} changed, {removed} removed; {} in the file",
        wanted.len()
    )?;
    Ok(out)
}

/// The fields in which two cameras differ, a line each. Addresses are shown without secrets.
fn differences(before: &CameraConfig, after: &CameraConfig) -> Result<String> {
    let fields = |camera: &CameraConfig| -> Result<BTreeMap<String, String>> {
        let serde_json::Value::Object(fields) = serde_json::to_value(camera)? else {
            return Ok(BTreeMap::new());
        };
        let mut shown: BTreeMap<String, String> = fields
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        shown.insert("url".into(), format!("\"{}\"", camera.url));
        Ok(shown)
    };
    let (before, after) = (fields(before)?, fields(after)?);
    let mut out = String::new();
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old != new {
            let text = |v: Option<&String>| v.map_or("absent", String::as_str).to_string();
            writeln!(out, "    {name}: {} -> {}", text(old), text(new))?;
        }
    }
    if out.is_empty() {
        out.push_str("    url: the login or a value in the query\n");
    }
    Ok(out)
}

async fn add(fleet: &Fleet, name: &str, wanted: &CameraConfigs) -> Result<String> {
    use twintrack::fleet::FleetError;
    match fleet.cameras.create(name, &wanted[name]).await {
        Ok(_) => Ok(format!("added {name}\n")),
        Err(FleetError::Changed(_)) => bail!(
            "the fleet has a camera '{name}' already; change it with `twintrack fleet apply`, or \
             remove it first"
        ),
        Err(e) => Err(e.into()),
    }
}

async fn remove(fleet: &Fleet, name: &str) -> Result<String> {
    let Some(record) = fleet.cameras.get(name).await? else {
        bail!("the fleet has no camera '{name}'");
    };
    fleet.cameras.delete(name, record.revision).await?;
    Ok(format!("removed {name}\n"))
}

async fn list(fleet: &Fleet, json: bool) -> Result<String> {
    let overview = FleetOverview::read(fleet).await?;
    if json {
        return Ok(serde_json::to_string_pretty(&overview.cameras)? + "\n");
    }
    let mut out = format!(
        "{:<24} {:<16} {:>8}  {:<20} address\n",
        "camera", "worker", "priority", "labels"
    );
    for camera in &overview.cameras {
        writeln!(
            out,
            "{:<24} {:<16} {:>8}  {:<20} {}",
            camera.name,
            camera.worker.as_deref().unwrap_or("-"),
            camera.priority,
            camera.labels.join(","),
            camera.url
        )?;
    }
    writeln!(out, "{} cameras", overview.cameras.len())?;
    Ok(out)
}

async fn status(fleet: &Fleet, json: bool) -> Result<String> {
    let overview = FleetOverview::read(fleet).await?;
    if json {
        return Ok(serde_json::to_string_pretty(&overview)? + "\n");
    }
    let mut out = format!(
        "{:<16} {:>8} {:>10} {:>10} {:>5} {:>9} {:<4} {:<9} labels\n",
        "worker", "cameras", "frames/s", "capacity", "load", "memory", "GPU", "state"
    );
    for worker in &overview.workers {
        let (w, rate) = (&worker.report, worker.rate());
        let labels: Vec<&str> = w.labels.iter().map(String::as_str).collect();
        writeln!(
            out,
            "{:<16} {:>8} {rate:>10.1} {:>10.1} {:>4.0}% {:>6} MB {:<4} {:<9} {}",
            w.name,
            w.cameras.len(),
            w.capacity,
            100.0 * rate / w.capacity.max(f64::MIN_POSITIVE),
            w.memory >> 20,
            if w.gpu { "yes" } else { "no" },
            if w.draining { "stopping" } else { "working" },
            labels.join(",")
        )?;
    }
    let without: Vec<&str> = overview.without_worker().map(|c| &*c.name).collect();
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    writeln!(
        out,
        "{}, {}, {} without a worker",
        counted(overview.workers.len(), "worker"),
        counted(overview.cameras.len(), "camera"),
        without.len()
    )?;
    for name in without.iter().take(20) {
        writeln!(out, "    {name}")?;
    }
    Ok(out)
}
