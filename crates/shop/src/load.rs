use std::path::PathBuf;
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    pub url: String,
    #[arg(long)]
    pub file: Option<PathBuf>,
}
pub async fn run(_: Args) -> anyhow::Result<bool> {
    Ok(true)
}
