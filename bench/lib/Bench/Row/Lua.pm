package Bench::Row::Lua;

# Processor time of the worker for one change by a script, beside that for the
# least that nginx can do, a `return 200` by the same worker; and how often a
# second a script can look at the servers.
#
# There is Lua for Debian's nginx only.

use v5.36;

use Test::Nginx;
use Test::Nginx::Binary;
use Test::Nginx::Lua;

use Bench::Pairs qw/pairs/;

use constant DEBIAN => '/usr/sbin/nginx';

use constant SERVERS => 10;

# Calls of a script in one request: each server is taken down and up again
# equally often.
use constant CALLS => 500 * 2 * SERVERS;

# Requests of the other side, in a measurement.
use constant REQUESTS => 500;

# Looks at four servers in one request, and how many a second there must be.
use constant LOOKS => 50_000;
use constant LOOKS_WANTED => 100_000;

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    %%LUA_PATH%%
    access_log off;
    keepalive_requests 100000000;

    upstream many {
        zone many 256k;
%%SERVERS%%
    }

    upstream four {
        zone four 256k;
        server 127.0.0.1:8101;
        server 127.0.0.1:8102;
        server 127.0.0.1:8103;
        server 127.0.0.1:8104 down;
    }

    server {
        listen 127.0.0.1:8080;
        location = /return { return 200; }

        location = /change {
            content_by_lua_block {
                local du = require "ngx.dynamic_upstream"
                local _, servers = du.get_servers("many")
                local before = require("ngx.upstream_control").revision("many")
                for n = 1, %%CALLS%% / 2 do
                    local peer = servers[n % #servers + 1].name
                    assert(du.set_peer_down("many", peer))
                    assert(du.set_peer_up("many", peer))
                end
                ngx.print(require("ngx.upstream_control").revision("many")
                    - before)
            }
        }

        location = /look {
            content_by_lua_block {
                local du = require "ngx.dynamic_upstream"
                local seen = 0
                for n = 1, %%LOOKS%% do
                    local _, servers = du.get_servers("four")
                    seen = seen + #servers
                end
                ngx.print(seen)
            }
        }
    }
}
CONF

# Nobody listens there, since nobody asks.
my @PORTS = map { 8100 + $_ } 1 .. SERVERS;

sub run ($class, $session) {
	my %change = (
		name => 'worker CPU of a change by Lua, ' . SERVERS . ' servers',
		goal => '<= 1', unit => 'us', digits => 2,
		how => '`set_peer_down` and `set_peer_up` of ngx.dynamic_upstream in '
			. 'turns, ' . CALLS . ' calls in one request / `return 200`, '
			. REQUESTS . ' requests over one kept-alive connection, by the '
			. "same worker of Debian's nginx, error_log at level error. "
			. '`bench/run.pl lua`',
	);
	my %look = (
		name => 'get_servers of 4 servers by Lua', goal => '>= 1', unit => '/s',
		how => '`get_servers` of ngx.dynamic_upstream: calls by seconds of the '
			. "worker's processor time, " . LOOKS . ' calls in one request / the '
			. LOOKS_WANTED . ' a second that there must be. '
			. "Debian's nginx. `bench/run.pl lua`",
	);
	my $missing = $session->null() ? 'needs the module' : _missing($session);
	return map { +{ %$_, missing => $missing } } \%change, \%look
		if $missing;

	my $nginx = $session->nginx(
		binary => DEBIAN, module => $session->debian(), conf => $CONF,
		holes => {
			LUA_PATH => Test::Nginx::Lua::path(), CALLS => CALLS,
			LOOKS => LOOKS, SERVERS => join("\n",
				map { "        server 127.0.0.1:$_;" } @PORTS),
		},
		modules => [qw/lua/],
	);
	$session->start($nginx);

	my ($changes, $looks) = (_changes($session, $nginx), _looks($session, $nginx));
	$session->stop($nginx);

	return { %change, ratio => $changes }, { %look, ratio => $looks };
}

sub _missing ($session) {
	return "needs make build-debian and Debian's nginx"
		unless -x DEBIAN && $session->debian();
	return Test::Nginx::Binary->new(DEBIAN)->lacks('lua');
}

sub _changes ($session, $nginx) {
	return pairs(
		one => sub { { cpu => _script($session, $nginx, '/change', CALLS)
			/ CALLS / 1000 } },
		other => sub { { cpu => _plain($session, $nginx) / REQUESTS / 1000 } },
		key => 'cpu', least => 40, most => 200, within => 0.01, seconds => 40,
		each => sub ($n) { $session->calm() unless $n % 10 },
	)->{cpu};
}

sub _looks ($session, $nginx) {
	return pairs(
		one => sub { { rate => 1e9 * LOOKS
			/ _script($session, $nginx, '/look', 4 * LOOKS) } },
		other => sub { { rate => LOOKS_WANTED } },
		key => 'rate', least => 20, most => 60, within => 0.01, seconds => 20,
		each => sub ($n) { $session->calm() unless $n % 10 },
	)->{rate};
}

# Nanoseconds of the worker for one request to a script, which says how much it
# has done.
sub _script ($session, $nginx, $uri, $wanted) {
	return _cpu($session, $nginx, sub {
		my $r = http_get($uri, timeout => 60);
		die "$uri: ", $r->status(), ' ', $r->body(), ", not $wanted\n"
			if $r->status() != 200 || $r->body() ne $wanted;
	});
}

sub _plain ($session, $nginx) {
	return _cpu($session, $nginx, sub {
		my $got = burst(n => REQUESTS, concurrency => 1, keepalive => 1,
			records => 0, uri => '/return');
		die "requests have failed\n" if $got->{ok} != REQUESTS;
	});
}

sub _cpu ($session, $nginx, $code) {
	my ($worker) = $nginx->workers();
	my $before = $session->cpu($worker);
	$code->();
	return $session->cpu($worker) - $before;
}

1;
