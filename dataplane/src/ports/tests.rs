use super::*;

fn ports(ip: [u8; 4], range: Range) -> Ports {
    Ports::new(vec![IpAddr::from(ip)], range, None, 0, || 0)
}

#[test]
fn both_sockets_of_a_pair_are_bound() {
    let ports = ports([127, 3, 0, 1], (41_000, 41_003));
    let first = ports.bind_pair(true, 0).expect("a pair");
    assert_eq!(first.rtp.local().port() % 2, 0);
    assert_eq!(first.rtcp.local().port(), first.rtp.local().port() + 1);
    let _second = ports.bind_pair(true, 0).expect("another");
    assert!(matches!(
        ports.bind_pair(true, 0),
        Err(PortError::Exhausted)
    ));
    let freed = first.rtp.local();
    drop(first);
    ports.release_pair(freed, 0);
    assert_eq!(ports.bind_pair(true, 0).expect("again").rtp.local(), freed);
}

#[test]
fn a_pair_that_someone_else_holds_is_skipped_and_found_again_later() {
    let ip = [127, 3, 0, 2];
    let ports = ports(ip, (41_100, 41_103));
    let foreign = UdpSocket::bind(SocketAddr::from((ip, 41_101)), 0).expect("binds");
    let pair = ports.bind_pair(true, 0).expect("the other pair");
    assert_eq!(pair.rtp.local().port(), 41_102);
    assert!(matches!(
        ports.bind_pair(true, 0),
        Err(PortError::HeldByOthers)
    ));
    drop(foreign);
    let pair = ports.bind_pair(true, 0).expect("free again");
    assert_eq!(pair.rtp.local().port(), 41_100);
}

#[test]
fn after_sixteen_foreign_pairs_the_search_jumps() {
    let ip = [127, 3, 0, 3];
    // The jumps go to pair 100, far behind the wall of foreign ports.
    let ports = Ports::new(vec![IpAddr::from(ip)], (41_200, 41_599), None, 0, || 100);
    ports.lock().values_mut().for_each(|pool| pool.jump(0));
    let wall: Vec<UdpSocket> = (0..20)
        .map(|pair| SocketAddr::from((ip, 41_200 + 2 * pair)))
        .map(|local| UdpSocket::bind(local, 0).expect("binds"))
        .collect();
    let pair = ports.bind_pair(true, 0).expect("behind the wall");
    assert_eq!(pair.rtp.local().port(), 41_400);
    assert_eq!(wall.len(), 20);
}

#[test]
fn a_family_without_an_address_is_an_error() {
    let ports = ports([127, 3, 0, 4], (41_000, 41_003));
    assert!(matches!(
        ports.bind_pair(false, 0),
        Err(PortError::NoAddress)
    ));
    let single = ports.bind_single(true).expect("any port");
    assert_ne!(single.local().port(), 0);
}
