#!/usr/bin/env perl

# Tests for the Lua APIs in every phase in which scripts run, with nothing but
# the module loaded: no directive of ours.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Lua;

plan(skip_all => 'no openssl') if system('openssl version >/dev/null 2>&1');

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone ssl lua/);

# What is tried in each phase, and kept until a request asks for it.
$t->write_file_expand('phases.lua', <<'LUA');
local du = require "ngx.dynamic_upstream"
local uc = require "ngx.upstream_control"

local _M = { seen = {} }

local function words(...)
    local parts = { n = select("#", ...), ... }
    for i = 1, parts.n do
        parts[i] = tostring(parts[i])
    end
    return table.concat(parts, " ")
end

function _M.try(phase)
    local peer = "127.0.0.1:8082"
    local ok, all, err = du.get_upstreams()
    local lines = { words(ok, all and table.concat(all, ","), err) }

    local function line(...)
        lines[#lines + 1] = words(...)
    end

    local function state()
        local status, err = uc.status("backend")
        local server = status and status.servers[2]
        line(server and server.state, server and server.reason
            and server.reason.client, err)
    end

    line(du.set_peer_down("backend", peer))
    state()
    line(du.update_peer("backend", peer, { down = 0, weight = 2 }))
    state()
    line(du.add_peer("backend", "127.0.0.1:8089"))
    line(du.remove_peer("backend", "127.0.0.1:8089"))
    line(du.current_upstream())

    lines = table.concat(lines, "|")
    _M.seen[phase] = lines
    if ngx.shared.seen then
        ngx.shared.seen:set(phase, lines)
    end
end

return _M
LUA

my $conf = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
%%MAIN%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%LUA_PATH%%
    %%SHARED%%

    init_by_lua_block { require("phases").try("init") }
    # One worker only, since the others would change the same servers meanwhile.
    init_worker_by_lua_block {
        if ngx.worker.id() ~= 0 then return end
        local phases = require "phases"
        phases.try("init_worker")
        ngx.timer.at(0, function() phases.try("timer of init_worker") end)
    }
    exit_worker_by_lua_block {
        if ngx.worker.id() ~= 0 then return end
        require("phases").try("exit_worker")
        ngx.log(ngx.NOTICE, "at the exit: ",
            require("phases").seen.exit_worker)
    }

    upstream backend {
        zone backend 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream of_lua {
        zone of_lua 64k;
        server 127.0.0.1:8081;
        balancer_by_lua_block {
            require("phases").try("balancer")
            require("ngx.balancer").set_current_peer("127.0.0.1",
                %%PORT_8081%%)
        }
    }

    server {
        listen 127.0.0.1:8080;
        listen 127.0.0.1:8443 ssl;
        ssl_certificate localhost.crt;
        ssl_certificate_key localhost.key;
        ssl_certificate_by_lua_block { require("phases").try("ssl_certificate") }

        location /seen {
            content_by_lua_block {
                local phase = ngx.unescape_uri(ngx.var.args)
                ngx.print(ngx.shared.seen and ngx.shared.seen:get(phase)
                    or require("phases").seen[phase])
            }
        }

        location /all {
            set_by_lua_block $set { require("phases").try("set") return "" }
            rewrite_by_lua_block { require("phases").try("rewrite") }
            access_by_lua_block { require("phases").try("access") }
            header_filter_by_lua_block { require("phases").try("header_filter") }
            body_filter_by_lua_block { require("phases").try("body_filter") }
            log_by_lua_block { require("phases").try("log") }
            proxy_pass http://backend;
        }

        location /content {
            content_by_lua_block {
                local phases = require "phases"
                phases.try("content")
                ngx.timer.at(0, function() phases.try("timer of a request") end)
                ngx.thread.wait(ngx.thread.spawn(phases.try, "thread"))
                coroutine.wrap(phases.try)("coroutine")
                ngx.location.capture("/subrequest")
            }
        }

        location /subrequest {
            content_by_lua_block { require("phases").try("subrequest") }
        }

        location /balancer { proxy_pass http://of_lua; }

        location /address {
            set $address 127.0.0.1:%%PORT_8082%%;
            proxy_pass http://$address;
            log_by_lua_block { require("phases").try("address") }
        }

        location /implicit {
            proxy_pass http://127.0.0.1:8081;
            log_by_lua_block { require("phases").try("implicit") }
        }

        %%LOCATION%%
    }
}
CONF

my %holes = (
	LUA_PATH => Test::Nginx::Lua::path() =~ s/"/"%%TESTDIR%%\/?.lua;/r,
	LOCATION => Test::Nginx::Lua::location('= /lua'),
	SHARED => 'lua_shared_dict seen 1m;', MAIN => '',
);

certificate();
$t->backend('127.0.0.1:8081', body => 'one');
$t->backend('127.0.0.1:8082', body => 'two');

# Scripts of init_by_lua run before the zones are there; with shared memory of
# Lua's own they run later than without.
my $too_early = join '|', ('false nil not available before the workers start') x 2,
	'nil nil not available before the workers start',
	'false nil not available before the workers start',
	'nil nil not available before the workers start',
	('false nil not available before the workers start') x 2,
	'false nil no request object';

for my $shared ('', $holes{SHARED}) {
	my $name = $shared ? 'with shared memory' : 'without';

	$t->write_file_expand('nginx.conf', $conf, %holes, SHARED => $shared)->run();
	is(seen('init'), $too_early, "init_by_lua, $name");
	is(states(), 'up up', 'and nothing was done') unless $shared;
	$t->reload();
	is(seen('init'), $too_early, "after a reload, $name");
	$t->stop();
}

$t->run();
each_phase('');

# The worker that ends does its last changes before those of the next begin.  It
# has an older configuration by then, in which servers neither come nor go.
my $exit = $t->expand(': true backend,127.0.0.1:%%PORT_8081%% nil|true nil nil|down lua nil|true nil nil|up lua nil|');
for my $when (' after a reload', ' after another') {
	lua('ngx.shared.seen:flush_all()');
	my $mark = $t->log_mark();
	$t->reload();
	like($t->find_in_log(qr/at the exit: /, 10, $mark),
		qr/\Q${exit}false nil Internal server error|false nil Internal server error|\E/,
		"exit_worker$when");
	each_phase($when);
}

my $mark = $t->log_mark();
$t->stop();
like($t->find_in_log(qr/at the exit: /, 1, $mark),
	qr/\Q${exit}true nil nil|true nil nil|\E/, 'exit_worker at the end');

# One process that is master and worker at once.
$t->write_file_expand('nginx.conf', $conf, %holes, MAIN => 'master_process off;');
$t->run();
is(seen('init'), $too_early, 'init_by_lua without a master');
each_phase(' without a master');

$t->done_testing();

sub each_phase ($when) {
	my $done = sub ($client, $upstream) {
		return join '|', 'true backend,127.0.0.1 nil', 'true nil nil',
			"down $client nil", 'true nil nil', "up $client nil",
			('true nil nil') x 2, $upstream;
	};
	my ($none, $peer) = ('false nil no proxying', '127.0.0.1');

	my $is = sub ($phase, @wanted) { seen_is($phase, $done->(@wanted), $when) };

	$t->wait_for(sub { seen('timer of init_worker') ne 'nil' }, 5, 'a timer');

	# What was seen before does not count; init_worker was before.
	lua('for _, key in ipairs(ngx.shared.seen:get_keys(0)) do'
		. ' if not key:find("init") then ngx.shared.seen:delete(key) end end');

	http_get('/all');
	$is->($_, $peer, $none) for qw/set rewrite access/;
	$is->($_, $peer, 'true backend nil')
		for qw/header_filter body_filter log/;

	http_get('/content');
	$is->($_, $peer, $none) for qw/content thread coroutine subrequest/;

	# It has the client of the request that set it off.
	$is->('timer of a request', $peer, $none);
	$is->($_, 'lua', $none) for 'init_worker', 'timer of init_worker';

	is(http_get('/balancer')->body(), 'one', "a balancer in Lua$when");
	$is->('balancer', $peer, 'true of_lua nil');
	is(lua('return uc.status("of_lua").static'),
		'"unknown load balancing method"', "whose upstream is static$when");

	http_get('/address');
	$is->('address', $peer, 'false nil no upstream');
	http_get('/implicit');
	$is->('implicit', $peer, 'true 127.0.0.1 nil');

	tls();
	$is->('ssl_certificate', $peer, $none);
	is(states(), 'up up', "in the end$when");
}

# A phase may come after the reply.
sub seen_is ($phase, $wanted, $when) {
	$t->wait_for(sub { seen($phase) ne 'nil' }, 5, $phase);
	is(seen($phase) =~ s/(?<=127\.0\.0\.1):\d+//gr, $wanted, "$phase$when");
}

sub seen ($phase) {
	return http_get('/seen?' . $phase =~ s/ /%20/gr)->body();
}

sub states () {
	return lua('local s = uc.status("backend").servers'
		. ' return s[1].state .. " " .. s[2].state') =~ s/"//gr;
}

sub certificate () {
	my $dir = $t->testdir();
	system('openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 '
		. '-nodes -days 2 -subj /CN=localhost '
		. "-keyout $dir/localhost.key -out $dir/localhost.crt 2>/dev/null") == 0
		or die "no certificate\n";
}

sub tls () {
	my $port = port(8443);
	system("openssl s_client -connect 127.0.0.1:$port </dev/null >/dev/null 2>&1");
}
