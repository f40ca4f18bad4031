/// `clerk` parked deeds.done 019b76da-a800-8154-9a0e-1758385877c0: rejected.
/// not
/// on Sundays
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_8154_9a0e_1758385877c0_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-0"),
        ("ce-datacontenttype", "application/json"),
        ("ce-id", "019b76da-a800-8154-9a0e-1758385877c0"),
        ("ce-personalfields", "customer"),
        ("ce-source", "bench"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "a-0"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.1", headers.to_vec(), r#"{"account":"a-0","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","does":"reject","amount":1099511627776}"#);
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

/// `clerk` parked deeds.done 019b76da-a800-89ac-bc85-650e8ad0af56: panic.
/// a "bug"
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_89ac_bc85_650e8ad0af56_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-1"),
        ("ce-datacontenttype", "application/json"),
        ("ce-id", "019b76da-a800-89ac-bc85-650e8ad0af56"),
        ("ce-personalfields", "customer"),
        ("ce-source", "bench"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "a-1"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.6", headers.to_vec(), r#"{"account":"a-1","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","does":"panic","amount":1099511627776}"#);
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

/// `clerk` parked deeds.done 019b76da-a800-833b-b5ef-a934094a2c3d: exhausted.
/// the vault is shut
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_833b_b5ef_a934094a2c3d_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-2"),
        ("ce-datacontenttype", "application/json"),
        ("ce-id", "019b76da-a800-833b-b5ef-a934094a2c3d"),
        ("ce-personalfields", "customer"),
        ("ce-source", "bench"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "a-2"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.3", headers.to_vec(), r#"{"account":"a-2","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","does":"retry","amount":1099511627776}"#);
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

/// `clerk` parked deeds.done 019b76da-a800-859c-9adc-92d4abb9cb04: too_large.
/// `clerk.said` would be 2097510 bytes, over the broker's limit of 1032192
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_859c_9adc_92d4abb9cb04_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-3"),
        ("ce-datacontenttype", "application/json"),
        ("ce-id", "019b76da-a800-859c-9adc-92d4abb9cb04"),
        ("ce-personalfields", "customer"),
        ("ce-source", "bench"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "a-3"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.0", headers.to_vec(), r#"{"account":"a-3","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","does":"shout","amount":1099511627776}"#);
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

/// `clerk` parked deeds.done 019b76da-a800-894a-bdde-2bbaebbb9804: misuse.
/// `clerk` does not publish `ELSEWHERE`
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_894a_bdde_2bbaebbb9804_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-4"),
        ("ce-datacontenttype", "application/json"),
        ("ce-id", "019b76da-a800-894a-bdde-2bbaebbb9804"),
        ("ce-personalfields", "customer"),
        ("ce-source", "bench"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "a-4"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.5", headers.to_vec(), r#"{"account":"a-4","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","does":"elsewhere","amount":1099511627776}"#);
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

/// `clerk` parked deeds.done 019b76da-a800-8b23-a869-469de3cf66e5: panic.
/// `clerk` does not keep the collection `secrets`: declare it with `keeps`
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_8b23_a869_469de3cf66e5_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-5"),
        ("ce-datacontenttype", "application/json"),
        ("ce-id", "019b76da-a800-8b23-a869-469de3cf66e5"),
        ("ce-personalfields", "customer"),
        ("ce-source", "bench"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "a-5"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.2", headers.to_vec(), r#"{"account":"a-5","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","does":"hide","amount":1099511627776}"#);
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

/// `clerk` parked deeds.done 019b76da-a800-8e12-adf8-5de73f32435b: rejected.
/// the account is open already
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_8e12_adf8_5de73f32435b_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-6"),
        ("ce-datacontenttype", "application/json"),
        ("ce-id", "019b76da-a800-8976-bb89-f71ccc5a087e"),
        ("ce-personalfields", "customer"),
        ("ce-source", "bench"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "a-6"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.7", headers.to_vec(), r#"{"account":"a-6","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","does":"twice","amount":1099511627776}"#);
    let headers = [
        ("ce-correlationid", "incident-6"),
        ("ce-datacontenttype", "application/json"),
        ("ce-id", "019b76da-a800-8e12-adf8-5de73f32435b"),
        ("ce-personalfields", "customer"),
        ("ce-source", "bench"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "a-6"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.7", headers.to_vec(), r#"{"account":"a-6","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","does":"twice","amount":1099511627776}"#);
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

/// `clerk` parked deeds.done 019b76da-a800-865a-8c27-9ccd2a6dc2ef: panic.
/// called `Result::unwrap()` on an `Err` value: TryFromIntError(())
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_865a_8c27_9ccd2a6dc2ef_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-7"),
        ("ce-datacontenttype", "application/json"),
        ("ce-id", "019b76da-a800-865a-8c27-9ccd2a6dc2ef"),
        ("ce-personalfields", "customer"),
        ("ce-source", "bench"),
        ("ce-specversion", "1.0"),
        ("ce-subject", "a-7"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.4", headers.to_vec(), r#"{"account":"a-7","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","does":"sum","amount":1099511627776}"#);
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

/// `clerk` parked deeds.done 019b76da-a800-83bd-9935-e7a0dd6ec47f: schema.
/// amount: `amount` is not an integer at line 1 column 79
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_83bd_9935_e7a0dd6ec47f_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-8"),
        ("ce-id", "019b76da-a800-83bd-9935-e7a0dd6ec47f"),
        ("ce-personalfields", "customer"),
        ("ce-source", "elsewhere"),
        ("ce-type", "deeds.done.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.0", headers.to_vec(), r#"{"account":"a-8","customer":"Xxx Xxxxxxxx, 00 Xx Xxxxx'x Xxxxxx","amount":"12"}"#);
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

/// `clerk` parked deeds.scanned 019b76da-a800-8115-be08-6d8175c5bb50: schema.
/// expected value at line 1 column 1
/// Personal fields have been replaced: customer.
#[test]
fn what_clerk_parked_as_019b76da_a800_8115_be08_6d8175c5bb50_is_handled() {
    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
    let headers = [
        ("ce-correlationid", "incident-9"),
        ("ce-id", "019b76da-a800-8115-be08-6d8175c5bb50"),
        ("ce-personalfields", "customer"),
        ("ce-source", "elsewhere"),
        ("ce-type", "deeds.scanned.v1"),
    ];
    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));
    sim.publish_raw("deeds.done.0", headers.to_vec(), b"\xff\xfe\"scan\"\n".as_slice());
    sim.settle().unwrap();
    assert_eq!(sim.dead_letters("clerk"), []);
}

