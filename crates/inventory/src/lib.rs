pub fn service() -> millstream::Service {
    millstream::Service::new("inventory")
}
