//! `manxctl bgp`.

use types::api::{PathView, RejectedRoute, RouteView};

use crate::cli::{Bgp, BgpCommand, Place};
use crate::datastore::local_agent;
use crate::render;

pub(crate) async fn run(place: &Place, args: Bgp) -> anyhow::Result<()> {
    let BgpCommand::Routes(args) = args.command;
    if args.rejected {
        let routes: Vec<RejectedRoute> = local_agent(place)?.get("/v1/routes/rejected").await?;
        return render::print(args.output.output, &routes, |routes| rejected(routes));
    }
    let mut query = Vec::new();
    query.extend(args.family.map(|family| format!("family={family}")));
    query.extend(args.prefix.map(|prefix| format!("prefix={prefix}")));
    let path = if query.is_empty() { "/v1/routes".to_owned() } else { format!("/v1/routes?{}", query.join("&")) };
    let routes: Vec<RouteView> = local_agent(place)?.get(&path).await?;
    render::print(args.output.output, &routes, |routes| table(routes))
}

fn table(routes: &[RouteView]) -> String {
    let header = ["", "PREFIX", "NEXT HOP", "FROM", "AS PATH", "PREF", "MED", "WHY"];
    let rows = routes.iter().flat_map(|route| {
        let own = route.own.then(|| {
            let own = ["*>", &route.prefix.to_string(), "-", "this node", "", "", "", "own block"];
            own.map(str::to_owned).to_vec()
        });
        own.into_iter().chain(route.paths.iter().map(|path| row(route, path)))
    });
    render::table(&header, rows)
}

fn rejected(routes: &[RejectedRoute]) -> String {
    if routes.is_empty() {
        return "No refused routes.".to_owned();
    }
    let rows = routes.iter().map(|route| {
        let next_hop = route.next_hop.map_or_else(|| "-".to_owned(), |next_hop| next_hop.to_string());
        let why = if route.used {
            format!("{} (used: originValidation is warn)", route.reason)
        } else {
            route.reason.clone()
        };
        vec![route.prefix.to_string(), next_hop, route.peer.to_string(), why]
    });
    render::table(&["PREFIX", "NEXT HOP", "FROM", "WHY"], rows)
}

fn row(route: &RouteView, path: &PathView) -> Vec<String> {
    let mark = match (path.best, path.used, path.stale) {
        (true, _, false) => "*>",
        (false, true, false) => "*=",
        (true, _, true) => "S>",
        (false, true, true) => "S=",
        (false, false, true) => "S",
        (false, false, false) => "*",
    };
    let number = |number: Option<u32>| number.map_or_else(String::new, |number| number.to_string());
    vec![
        mark.to_owned(),
        route.prefix.to_string(),
        path.next_hop.to_string(),
        path.peer.to_string(),
        format!("{} {}", path.as_path, path.origin).trim().to_owned(),
        number(path.local_pref),
        number(path.med),
        path.reason.clone(),
    ]
}
