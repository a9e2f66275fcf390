use super::*;

const POOL: &str = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.0.0.0/16}\n";

#[test]
fn a_file_may_hold_several_documents_and_lists() {
    let pools = parse(&format!("---\n{POOL}---\n{POOL}---\n"), None).unwrap();
    assert_eq!(pools.len(), 2);
    let list =
        "kind: List\napiVersion: v1\nitems:\n- {apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n}}\n";
    assert_eq!(parse(list, None).unwrap().len(), 1);
}

#[test]
fn all_faults_of_a_file_are_told_at_once_and_nothing_is_applied() {
    let bad = POOL.replace("cidr", "cdir");
    let error =
        parse(&format!("{POOL}---\n{bad}---\n{}", POOL.replace("IPPool", "FelixConfiguration")), None).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("spec.cdir") && error.contains("FelixConfiguration"), "{error}");
    assert!(parse("---\n", None).unwrap_err().to_string().contains("no resource"));
}

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\n\
    spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}, {}]}\n";

#[test]
fn a_policy_goes_into_the_namespace_of_its_document_or_of_the_command_line() {
    let shop: ResourceName = "shop".parse().unwrap();
    let named = |text: &str, namespace| {
        let resources = parse(text, namespace).map_err(|error| error.to_string())?;
        Ok::<_, String>(resources.iter().map(|resource| resource.reference().to_string()).collect::<Vec<_>>())
    };
    assert_eq!(named(POLICY, None).unwrap(), ["NetworkPolicy default/web"]);
    let both = format!("{POLICY}---\n{POOL}");
    assert_eq!(named(&both, Some(&shop)).unwrap(), ["NetworkPolicy shop/web", "IPPool a"]);
    let placed = POLICY.replace("name: web}", "name: web, namespace: other}");
    assert_eq!(named(&placed, None).unwrap(), ["NetworkPolicy other/web"]);
    let error = named(&placed, Some(&shop)).unwrap_err();
    assert!(error.contains("namespace \"other\", the command line for shop"), "{error}");
}

#[test]
fn policies_and_namespaces_are_shown_at_a_glance() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n";
    let policies = parse(POLICY, None).unwrap();
    assert_eq!(
        table(Kind::NetworkPolicy, &policies, true),
        "NAMESPACE  NAME  PODS     INGRESS  EGRESS  PROBLEMS\ndefault    web   app=web  2 rules  -       -"
    );
    assert_eq!(
        table(Kind::Namespace, &parse(namespace, None).unwrap(), true),
        "NAME  LABELS\nshop  kubernetes.io/metadata.name=shop,team=a"
    );
}
