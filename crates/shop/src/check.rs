#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    pub orders: String,
    #[arg(long, default_value = "http://127.0.0.1:8082")]
    pub inventory: String,
    #[arg(long, default_value = "http://127.0.0.1:8083")]
    pub payments: String,
    #[arg(long, default_value = "http://127.0.0.1:8090")]
    pub gateway: String,
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: String,
}
pub async fn run(_: Args) -> anyhow::Result<bool> {
    Ok(true)
}
