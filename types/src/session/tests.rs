use super::SessionState;
use crate::api::PeerStatus;

const SPELLINGS: [(SessionState, &str); 6] = [
    (SessionState::Idle, "idle"),
    (SessionState::Connect, "connect"),
    (SessionState::Active, "active"),
    (SessionState::OpenSent, "opensent"),
    (SessionState::OpenConfirm, "openconfirm"),
    (SessionState::Established, "established"),
];

#[test]
fn the_local_api_spells_states_as_it_always_has() {
    for (state, spelling) in SPELLINGS {
        assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{spelling}\""));
        assert_eq!(serde_json::from_str::<SessionState>(&format!("\"{spelling}\"")).unwrap(), state);
        assert_eq!(state.as_str(), spelling);
        assert_eq!(state.to_string().to_ascii_lowercase(), spelling);
        assert_eq!(state.is_established(), spelling == "established");
    }
    assert!(serde_json::from_str::<SessionState>("\"Established\"").is_err());
}

#[test]
fn a_peer_of_the_local_api_is_this_json() {
    let json = r#"{"address":"192.0.2.1","port":179,"origin":"mesh","asn":64512,"state":"openconfirm","sinceSecs":7,"families":["ipv4"],"received":3,"accepted":2,"refused":1,"stale":0,"refusedConnections":0,"lastError":null}"#;
    let peer: PeerStatus = serde_json::from_str(json).unwrap();
    assert_eq!(peer.state, SessionState::OpenConfirm);
    assert_eq!(serde_json::to_string(&peer).unwrap(), json);
}
