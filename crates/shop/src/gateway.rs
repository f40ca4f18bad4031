use std::path::PathBuf;
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[arg(long, env = "GATEWAY_LISTEN", default_value = "127.0.0.1:8090")]
    pub listen: std::net::SocketAddr,
    #[command(flatten)]
    pub settings: Settings,
}
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Settings {
    #[arg(long)]
    pub ledger: Option<PathBuf>,
}
pub async fn run(options: Options, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    serve(listener, options.settings, shutdown).await
}
pub async fn serve(
    listener: tokio::net::TcpListener,
    _: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let routes = axum::Router::new().fallback(async || "ok");
    Ok(axum::serve(listener, routes).with_graceful_shutdown(shutdown).await?)
}
