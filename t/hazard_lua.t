#!/usr/bin/env perl

# Tests under load: scripts in two workers add, remove and change servers, each
# of them servers of its own, so that it knows what must be there after each
# call; while requests are served by fast, slow and refusing servers, and nginx
# is reloaded in the middle.  No call answers what it must not, no request
# fails, nothing is left behind.
#
# TEST_NGINX_LONG is the time in seconds for each half, that before the reload
# and that after it.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Lua;

# Loops of each worker.
use constant LOOPS => 3;

my @methods = (
	[ round_robin => '' ],
	[ least_conn => 'least_conn;' ],
	[ ip_hash => 'ip_hash;' ],
	[ hash => 'hash $request_id;' ],
	[ consistent => 'hash $request_id consistent;' ],
	[ random => 'random;' ],
	[ random_two => 'random two;' ],
);

my $seconds = $ENV{TEST_NGINX_LONG} || 2;

my $t = Test::Nginx->new(timeout => 60 + 4 * $seconds)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_ip_hash upstream_hash upstream_random lua
/)->plan(11);

# 8081 and 8082 are always there, and answer.  8083 refuses.
my $upstreams = join '', map { <<"BLOCK" } @methods;
    upstream $_->[0] {
        zone $_->[0] 256k;
        $_->[1]
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083 max_fails=0;
        keepalive 16;
    }

BLOCK

# A loop has addresses that no other has: they are made of its worker's pid.
$t->write_file_expand('churn.lua', <<'LUA',
local du = require "ngx.dynamic_upstream"
local shared = ngx.shared.churn

local NAMES = { %%NAMES%% }

local function wrong(what, ...)
    local words = { n = select("#", ...), ... }
    for i = 1, words.n do
        words[i] = tostring(words[i])
    end
    -- A worker that nginx is about to end runs an older configuration, in
    -- which servers neither come nor go.
    ngx.sleep(1)
    if not ngx.worker.exiting() then
        shared:lpush("wrong", what .. ": " .. table.concat(words, " "))
    end
end

-- A server of get_servers by its address.
local function find(name, address)
    local ok, servers, err = du.get_servers(name)
    if not ok then
        return nil, err
    end
    for _, server in ipairs(servers) do
        if server.name == address then
            return server
        end
    end
end

local function round(name, address)
    local function expect(wanted, what, ok, data, err)
        if ok ~= wanted or data ~= nil or (err == nil) ~= wanted then
            wrong(what, name, address, ok, data, err)
            return false
        end
        shared:incr("calls", 1, 0)
        return true
    end

    local function shows(what, weight, down)
        local server, err = find(name, address)
        shared:incr("calls", 1, 0)
        if not server or server.weight ~= weight or server.down ~= down then
            wrong(what, name, address, err, server and server.weight,
                server and server.down)
            return false
        end
        return true
    end

    local weight = math.random(2, 3)

    return expect(true, "add", du.add_peer(name, address))
        and shows("added", 1, nil)
        and expect(false, "add again", du.add_peer(name, address))
        and expect(true, "update",
            du.update_peer(name, address, { weight = weight, down = 1 }))
        and shows("updated", weight, true)
        and expect(true, "up", du.set_peer_up(name, address))
        and shows("up again", weight, nil)
        and expect(true, "down", du.set_peer_down(name, address))
        and expect(true, "remove", du.remove_peer(name, address))
        and expect(false, "remove again", du.remove_peer(name, address))
        and expect(true, "others",
            du.update_peer(name, "127.0.0.1:8083", { weight = weight,
                down = math.random(0, 1) }))
end

local _M = {}

function _M.start(premature, loop)
    if premature then
        return
    end
    local pid = ngx.worker.pid()
    math.randomseed(pid * 16 + loop)
    local address = ("127.%d.%d.%d:8081"):format(
        100 + loop, math.floor(pid / 256) % 256, pid % 256)
    while not shared:get("go") do
        ngx.sleep(0.01)
    end
    while not ngx.worker.exiting() and not shared:get("stop") do
        local name = NAMES[math.random(#NAMES)]
        if round(name, address) then
            shared:incr("pid " .. pid, 1, 0)
        end
        ngx.sleep(0.001)
    end
    shared:incr("running", -1)
end

return _M
LUA
	NAMES => join(', ', map { "\"$_->[0]\"" } @methods));

$t->write_file_expand('nginx.conf', <<'CONF',
%%TEST_GLOBALS%%
worker_processes 2;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    %%LUA_PATH%%
    lua_shared_dict churn 1m;

    init_worker_by_lua_block {
        for loop = 1, %%LOOPS%% do
            ngx.shared.churn:incr("running", 1, 0)
            ngx.timer.at(0, require("churn").start, loop)
        end
    }

%%UPSTREAMS%%
    server {
        listen 127.0.0.1:8080;

        location /status { upstream_status; }

        location ~ ^/(?<group>\w+)/(?<what>.*)$ {
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://$group/$what;
        }

        %%LOCATION%%
    }
}
CONF
	LUA_PATH => Test::Nginx::Lua::path() =~ s/"/"%%TESTDIR%%\/?.lua;/r,
	LOCATION => Test::Nginx::Lua::location('= /lua'),
	LOOPS => LOOPS, UPSTREAMS => $upstreams);

my %late = map { ("/slow/$_" => { delay => $_ / 1000 }) } 100, 200, 300;
$t->backend("127.0.0.1:$_", uris => \%late) for 8081, 8082;

# The leak keys are compared with those of the rest before the storm.
$t->run();
$t->leak_keys('/status');
lua('ngx.shared.churn:set("go", true)');

my @uris = map { my $name = $_->[0];
	map { "/$name/$_" } qw{slow/100 slow/200 slow/300 fast} } @methods;

my $workers = half('before the reload');
$t->reload();
my $others = half('after it');
is_deeply([ grep { $others->{$_} } keys %$workers ], [],
	'these are other workers');

lua('ngx.shared.churn:set("stop", true)');
$t->wait_for(sub { shared('get("running")') eq '0' }, 10, 'the loops have ended');
is(shared('lrange') , '', 'each call answered what it must');
cmp_ok(shared('get("calls")'), '>', 300 * $seconds, 'calls');
note(shared('get("calls")'), ' calls');

is(lua('local names = {} for _, name in ipairs(select(2, du.get_upstreams())) do'
	. ' local _, servers = du.get_servers(name)'
	. ' if #servers ~= 3 then names[#names + 1] = name end end'
	. ' return #names'), '0', 'all servers that came are gone');

is_deeply([ $t->grep_log(qr/no live upstreams|panic/) ], [],
	'there always was a server to choose');

# Half of the time; returns the workers that have made changes in it.
sub half ($name) {
	my $load = $t->load(seconds => $seconds, concurrency => 24,
		uri => sub ($n) { $uris[ $n % @uris ] });
	my $result = $load->finish();

	is($result->{failed}, 0, "no request failed $name")
		or diag(explain([ @$result{qw/by_status errors/} ]));
	cmp_ok($result->{total}, '>', 20 * $seconds, "requests $name");

	my %rounds = shared('pids') =~ /(\d+)=(\d+)/g;
	my %now = map { $_ => $rounds{$_} } grep { $rounds{$_} > 10 }
		$t->workers();
	is(keys %now, 2, "both workers made changes $name")
		or diag(explain(\%rounds));

	return \%now;
}

# What the loops have left for us.
sub shared ($what) {
	return lua('local shared, words = ngx.shared.churn, {}'
		. ' for _, key in ipairs(shared:get_keys(0)) do'
		. '   local pid = key:match("^pid (%d+)")'
		. '   if pid then words[#words + 1] = pid .. "=" .. shared:get(key) end'
		. ' end return table.concat(words, " ")') if $what eq 'pids';
	return lua('local all = {} for i = 1, 20 do'
		. ' all[i] = ngx.shared.churn:lpop("wrong") end'
		. ' return unpack(all)') if $what eq 'lrange';
	return lua("return ngx.shared.churn:$what") =~ s/, nil\z//r;
}
