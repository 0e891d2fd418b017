//! Commands to a running server, through its admin API.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use sources::Location;

use super::demo;
use crate::assemble::token::TOKEN_FILE;
use crate::client::{AdminClient, path_part};
use crate::config::{ADMIN_LISTEN, DATA_DIR};

/// Which server.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// The server's admin API [default: http://127.0.0.1:8081]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// File with its token [default: admin-token in the data directory]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The server's data directory [default: mortise-data, else the demo's]
    #[arg(long, value_name = "DIR", conflicts_with = "token_file")]
    data_dir: Option<PathBuf>,
}

impl AdminArgs {
    /// The server's admin API.
    pub(super) fn client(&self) -> Result<AdminClient> {
        let default = format!("http://{ADMIN_LISTEN}");
        AdminClient::new(self.admin.as_deref().unwrap_or(&default), &self.token_file())
    }

    /// One call; what the server answers.
    pub(super) fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let client = self.client()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("start the runtime")?.block_on(client.call(method, path, body))
    }

    fn token_file(&self) -> PathBuf {
        if let Some(file) = &self.token_file {
            return file.clone();
        }
        let default = PathBuf::from(DATA_DIR);
        let data_dir = match &self.data_dir {
            Some(dir) => dir.clone(),
            // Nobody has to say where the demo is who stands in its checkout.
            None if !default.join(TOKEN_FILE).exists() => demo::data_dir().unwrap_or(default),
            None => default,
        };
        data_dir.join(TOKEN_FILE)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum AdapterCommand {
    /// Loads a PEFT directory under a name, or a new version of it
    Load {
        /// Its name in requests
        name: String,
        /// The directory, on the server's machine, or an address below one of its adapter_source
        dir: PathBuf,
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Takes a name away; running requests keep their adapter
    Unload {
        /// Its name in requests
        name: String,
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Looks for adapters that came, changed and went in the server's adapter_dir
    Scan {
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Lists adapters
    List {
        #[command(flatten)]
        server: AdminArgs,
    },
}

/// What the server is to make of a path given here: its working directory is another.
fn elsewhere(path: PathBuf) -> Result<PathBuf> {
    if path.to_str().is_some_and(Location::is_one) {
        return Ok(path);
    }
    std::path::absolute(&path).context("find the directory")
}

impl AdapterCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Load { name, dir, server } => {
                let body = json!({"name": name, "path": elsewhere(dir)?});
                let view = server.call(Method::POST, "/admin/adapters", Some(&body))?;
                print_adapter(&view);
            }
            Self::Unload { name, server } => {
                let path = format!("/admin/adapters/{}", path_part(&name));
                server.call(Method::DELETE, &path, None)?;
                println!("{name} is unloaded");
            }
            Self::Scan { server } => {
                let scan = server.call(Method::POST, "/admin/scan", None)?;
                let (added, changed) = (&scan["added"], &scan["changed"]);
                println!("{added} added, {changed} changed, {} removed", scan["removed"]);
                for refused in scan["refused"].as_array().into_iter().flatten() {
                    println!("{}: {}", refused["path"], refused["reason"]);
                }
            }
            Self::List { server } => {
                let list = server.call(Method::GET, "/admin/adapters", None)?;
                list["adapters"].as_array().into_iter().flatten().for_each(print_adapter);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_adapter(view: &Value) {
    let text = |key: &str| view[key].as_str().unwrap_or("?").to_owned();
    let generation: String = text("generation").chars().take(12).collect();
    let (name, path, rank) = (text("name"), text("path"), &view["rank_max"]);
    let corpus = match view["corpus"]["documents"].as_u64() {
        Some(documents) => {
            format!("{documents} documents of {} contributors", view["corpus"]["contributors"])
        }
        None => "no corpus".to_owned(),
    };
    let residence = text("residence");
    println!("{name}  {generation}  rank {rank}  {residence}  {corpus}  {path}");
}

/// `mortise drain`
pub(super) fn drain(server: &AdminArgs) -> Result<ExitCode> {
    server.call(Method::POST, "/admin/drain", Some(&json!({})))?;
    println!("the server finishes its requests and ends");
    Ok(ExitCode::SUCCESS)
}
