#[derive(Clone, Debug, Default)]
pub struct Settings {}
pub fn service(_: Settings) -> millstream::Service {
    millstream::Service::new("orders")
}
