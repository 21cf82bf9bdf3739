#!/usr/bin/env bash
# Usage: tests/lab/apiserver.sh build | run
# A real Kubernetes API server: see tests/lab/apiserver/README.md.
#   build  builds kube-apiserver, kubectl and etcd, and prints the folder they are in; does nothing more when it is done already.
#          Needs Go on the PATH; one older than 1.24 fetches a newer one itself. The first time 10 to 25 minutes on two cores.
#   run    starts a server with data of its own, prints one line of JSON (kubeconfig, url, bin) when it answers, and ends at
#          the end of its standard input: with whoever started it, or with Ctrl-D.
#   V2V_LAB_CACHE  where programs are kept (default /var/cache/v2v-pod-lab)
set -euo pipefail

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
say() { printf 'apiserver: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

cache=${V2V_LAB_CACHE:-/var/cache/v2v-pod-lab}
modules=$(cd "$(dirname "$0")/apiserver" && pwd)
release=$(awk '$2 == "k8s.io/kubernetes" { print $3 } $1 == "k8s.io/kubernetes" { print $2 }' "$modules/go.mod")
# Without optimisation the compiler needs half the time and memory, and the server is quick enough. Clients ask for the release.
variables=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    variables+=" -X $package.gitVersion=$release -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$release")"
done
flags=(-gcflags=all='-N -l' -ldflags="-s -w$variables")
key=$(cat "$modules/go.mod" "$modules/go.sum" - <<<"${flags[*]}" | sha256sum | cut -c1-16)
bin=$cache/kube-$key
programs=(k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl go.etcd.io/etcd/server/v3)

build() {
    [ ! -d "$bin" ] || return 0
    command -v go >/dev/null || die "Go is needed; run scripts/install-deps.sh lab"
    mkdir -p "$cache"
    # One build at a time: tests run in parallel and share the cache.
    exec 9>"$cache/kube.lock"
    flock 9
    [ ! -d "$bin" ] || return 0
    export HOME="${HOME:-/root}" # of Go's own caches
    # Go 1.21 and newer fetch the release that go.mod asks for; an older one can only fetch a newer Go as a program.
    local go=go version new=$bin.new
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    if ! printf '%s\n' go1.21 "${version%% *}" | sort -CV; then
        say "$version cannot fetch a newer one by itself"
        go=$(newer_go)
        version=$(GOROOT='' "$go" env GOVERSION)
        unset GOROOT
    fi
    say "building Kubernetes and etcd with $version: this takes a while"
    rm -rf "$new"
    mkdir "$new"
    # Without cgo no C compiler is needed. go.sum has the hashes of all that is fetched.
    local program
    for program in "${programs[@]}"; do
        (cd "$modules" && CGO_ENABLED=0 GOFLAGS='-mod=readonly -trimpath -buildvcs=false' GOSUMDB=off \
            nice "$go" build "${flags[@]}" -o "$new/$(name_of "$program")" "$program") >&2 9>&-
    done
    mv "$new" "$bin"
    say "done in $SECONDS s"
}

name_of() {
    case $1 in
    go.etcd.io/*) echo etcd ;;
    *) basename "$1" ;;
    esac
}

# Prints the path of a Go that go.mod is content with, from the module that Go's own toolchain switch takes.
newer_go() {
    local version=v0.0.1-go1.24.13.linux-amd64 sum=h1:5sgfUhn9QCgVl4UYj32GrIYFHI3bi2UX55tNfupXwxc= said dir
    said=$(cd / && GO111MODULE=on GOFLAGS=-mod=mod GOSUMDB=off go mod download -json "golang.org/toolchain@$version") || die "$said"
    grep -qF "\"$sum\"" <<<"$said" || die "golang.org/toolchain@$version is not what it was: $said"
    dir=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$said")
    # A module has no executables and no go.mod within.
    rm -rf "${cache:?}/$version"
    cp -r "$dir" "$cache/$version"
    chmod -R u+w "$cache/$version"
    chmod -R a+x "$cache/$version/bin" "$cache/$version/pkg/tool"
    mv "$cache/$version/src/_go.mod" "$cache/$version/src/go.mod"
    echo "$cache/$version/bin/go"
}

certificate() { # NAME SUBJECT USAGE [ALTERNATIVE-NAMES]
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    printf 'extendedKeyUsage=%s\n%s\n' "$3" "${4:+subjectAltName=$4}" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}

certificates() {
    openssl ecparam -name prime256v1 -genkey -noout -out ca.key
    openssl req -x509 -new -key ca.key -subj '/CN=v2v lab Kubernetes CA' -days 30 -out ca.crt
    certificate server '/CN=kube-apiserver' serverAuth 'DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1'
    certificate admin '/O=system:masters/CN=admin' clientAuth
    openssl ecparam -name prime256v1 -genkey -noout -out service-accounts.key
}

kubeconfig() { # PORT
    cat <<END
apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {server: "https://127.0.0.1:$1", certificate-authority-data: $(base64 -w0 ca.crt)}
users:
- name: admin
  user: {client-certificate-data: $(base64 -w0 admin.crt), client-key-data: $(base64 -w0 admin.key)}
contexts:
- name: lab
  context: {cluster: lab, user: admin}
current-context: lab
END
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Waits for the server; fails when it ended.
answers() {
    for _ in $(seq 600); do
        kill -0 "$server" "$etcd" 2>/dev/null || return 1
        [ "$(curl -s --cacert ca.crt --cert admin.crt --key admin.key "https://127.0.0.1:$1/readyz")" != ok ] || return 0
        sleep 0.2
    done
    return 1
}

start() { # PORT
    kubeconfig "$1" >kubeconfig
    # No ServiceAccount plugin and no endpoints of the server itself: nothing here makes the objects they need. The other plugin is
    # off by default, and on in OpenShift.
    setpriv --pdeathsig KILL "$bin/kube-apiserver" --etcd-servers=unix://"$dir/etcd.sock" --bind-address=127.0.0.1 \
        --secure-port="$1" --advertise-address=127.0.0.1 --endpoint-reconciler-type=none --service-cluster-ip-range=10.0.0.0/24 \
        --cert-dir="$dir" --tls-cert-file=server.crt --tls-private-key-file=server.key --client-ca-file=ca.crt \
        --authorization-mode=RBAC --disable-admission-plugins=ServiceAccount \
        --enable-admission-plugins=OwnerReferencesPermissionEnforcement \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=service-accounts.key \
        --service-account-signing-key-file=service-accounts.key --audit-policy-file=audit.yaml --audit-log-path=audit.log \
        >>apiserver.log 2>&1 </dev/null &
    server=$!
    answers "$1"
}

run() {
    local port
    dir=$(mktemp -d "${TMPDIR:-/tmp}/v2v-apiserver.XXXXXX")
    server='' etcd=''
    # shellcheck disable=SC2016
    trap '{ kill -KILL $server $etcd; wait; } 2>/dev/null || true; rm -rf "$dir"' EXIT
    trap 'exit 0' INT TERM HUP
    cd "$dir"
    certificates
    # Who asked for what, one line of JSON each.
    printf '{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[{"level":"Metadata"}]}' >audit.yaml
    # Over a socket of its own etcd needs no free port, and nobody else finds it (what it advertises nobody asks for). What it
    # has need not survive: no fsync.
    setpriv --pdeathsig KILL "$bin/etcd" --data-dir="$dir/etcd" --listen-client-urls=unix://"$dir/etcd.sock" \
        --advertise-client-urls=http://localhost:2379 --listen-peer-urls=http://127.0.0.1:0 --unsafe-no-fsync \
        >etcd.log 2>&1 </dev/null &
    etcd=$!
    # Another program may take the port in between.
    for _ in 1 2 3; do
        port=$(free_port)
        if start "$port"; then
            printf '{"kubeconfig":"%s","url":"https://127.0.0.1:%s","bin":"%s"}\n' "$dir/kubeconfig" "$port" "$bin"
            cat >/dev/null
            exit 0
        fi
        kill -KILL "$server" 2>/dev/null || true
    done
    tail -n 20 etcd.log apiserver.log >&2
    die "the server does not start (above)"
}

case "$*" in
build) build; echo "$bin" ;;
run) build; run ;;
*) usage ;;
esac
