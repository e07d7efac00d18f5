#!/usr/bin/env perl

# Tests for the Lua APIs: what each function answers, what it does, and that
# all workers see it when it returns.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Lua;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone unix ipv6 lua/)
	->plan(122);

$t->write_file_expand('nginx.conf', <<'CONF',
%%TEST_GLOBALS%%
worker_processes 4;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%LUA_PATH%%

    upstream backend {
        zone backend 64k;
        server 127.0.0.1:8081;
        server [::1]:8082 weight=2 max_fails=3 fail_timeout=1m max_conns=9;
        server unix:%%TESTDIR%%/backend.sock down;
        server 127.0.0.1:8083 backup;
        server 127.0.0.1:0%%PORT_8084%% backup down;
    }

    upstream other {
        zone zone_of_other 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8085;
    }

    upstream guarded {
        zone guarded 64k;
        upstream_guard min=1;
        server 127.0.0.1:8081;
    }

    upstream hashed {
        zone hashed 64k;
        ip_hash;
        server 127.0.0.1:8081;
    }

    # A reply about them does not fit into the first buffer.
    upstream large {
        zone large 2m;
%%LARGE%%
    }

    # These cannot be controlled.
    upstream zoneless { server 127.0.0.1:8081; }

    upstream excluded {
        zone excluded 64k;
        upstream_dynamic off;
        server 127.0.0.1:8081;
    }

    server {
        # each worker has its own socket
        listen 127.0.0.1:8080 reuseport;

        location /status { upstream_status; }

        location ~ ^/(?<name>backend|other)$ {
            proxy_pass http://$name;
        }

        %%LOCATION%%
    }
}
CONF
	LUA_PATH => Test::Nginx::Lua::path(),
	LARGE => join("\n", map { "        server 127.0.1.$_:8081;" } 1 .. 200),
	LOCATION => Test::Nginx::Lua::location('/lua'));

$t->backend($_) for '127.0.0.1:8081', '127.0.0.1:8085', '[::1]:8082',
	'unix:%%TESTDIR%%/backend.sock', '127.0.0.1:8083';

$t->run();
$t->leak_keys('/status');

# A text that is not how nginx writes the address.
my $text = '127.0.0.1:0' . port(8084);
my $socket = 'unix:' . $t->testdir() . '/backend.sock';

lists();
states();
members();
updates();
refusals();
peers();
own_lists();
own_changes();
own_refusals();
every_worker();
memory();

# One of the functions, and the three values that it answers.
sub answers ($call, $wanted, $name = $call) {
	is(lua("return du.$call"), $wanted, $name);
}

sub own ($call, $wanted, $name = $call) {
	is(lua("return uc.$call"), $wanted, $name);
}

sub peer ($upstream, $server) {
	my ($peer) = grep { $t->logical($_->{name}) eq $server }
		get_json('/status')->{upstreams}{$upstream}{peers}->@*;
	return $peer;
}

sub servers ($upstream) {
	return lua("local _, servers = du.get_servers('$upstream') local names = {}"
		. ' for i, server in ipairs(servers) do names[i] = server.name end'
		. ' return table.concat(names, " ")') =~ s/"//gr;
}

sub lists {
	answers('get_upstreams()',
		'true, {"backend", "other", "guarded", "hashed", "large", "zoneless", '
		. '"excluded"}, nil');
	is(lua('local names = select(2, du.get_upstreams()) for _, name in ipairs(names) do'
		. ' if not du.get_peers(name) or not du.get_servers(name) then return name end'
		. ' end return #names'), '7', 'each of which can be read');
	is(lua('local _, s = du.get_servers("large") local names = {}'
		. ' for i, server in ipairs(s) do names[i] = server.name end'
		. ' return #s, table.concat(names, " ")'),
		'200, "' . join(' ', map { "127.0.1.$_:8081" } 1 .. 200) . '"',
		'very many servers');

	answers('get_servers("other")', 'true, {'
		. join(', ', map {
			"{fail_timeout=10, max_fails=1, name=\"127.0.0.1:$_\", weight=1}"
		} 8081, 8085) . '}, nil');
	is(lua('return du.get_servers("zone_of_other")'),
		lua('return du.get_servers("other")'), 'by the name of the zone');
	answers('get_servers("backend")', 'true, {'
		. '{fail_timeout=10, max_fails=1, name="127.0.0.1:8081", weight=1}, '
		. '{fail_timeout=60, max_fails=3, name="[::1]:8082", weight=2}, '
		. "{down=true, fail_timeout=10, max_fails=1, name=\"$socket\", weight=1}, "
		. '{fail_timeout=10, max_fails=1, name="127.0.0.1:8083", weight=1}, '
		. '{down=true, fail_timeout=10, max_fails=1, name="127.0.0.1:8084", '
		. 'weight=1}}, nil', 'get_servers, all kinds');
	is(lua('local ok, s = du.get_servers("other")'
		. ' return rawget(s[1], "down"), s[1].weight .. ""'),
		'nil, "1"', 'down is not there when a server is up');
}

sub states {
	answers('set_peer_down("other", "127.0.0.1:8081")', 'true, nil, nil');
	is(peer('other', '127.0.0.1:8081')->{state}, 'down', 'down in the status');
	is(peer('other', '127.0.0.1:8081')->{reason}{client}, '127.0.0.1',
		'the client is the reason');
	is_deeply(burst(uri => '/other', n => 40)->{by_body}, { 8085 => 40 },
		'no request goes there');
	is(lua('return select(2, du.get_servers("other"))[1].down'), 'true',
		'down in get_servers');
	answers('set_peer_down("other", "127.0.0.1:8081")', 'true, nil, nil',
		'down already');
	answers('set_peer_up("zone_of_other", "127.0.0.1:8081")',
		'true, nil, nil');
	is(peer('other', '127.0.0.1:8081')->{state}, 'up', 'up in the status');
	is_deeply(burst(uri => '/other', n => 40, concurrency => 1)->{by_body},
		{ 8081 => 20, 8085 => 20 }, 'requests go there');

	# However an address is written, and by the text of the file.
	answers('set_peer_down("backend", "[0:0::1]:%%PORT_8082%%")' =~
		s/%%PORT_8082%%/port(8082)/er, 'true, nil, nil', 'IPv6');
	is(peer('backend', '[::1]:8082')->{state}, 'down', 'IPv6 is down');
	answers('set_peer_up("backend", "[::1]:8082")', 'true, nil, nil');
	answers("set_peer_up('backend', '$socket')", 'true, nil, nil', 'unix');
	is(peer('backend', $socket)->{state}, 'up', 'unix is up');
	answers("set_peer_down('backend', '$socket')", 'true, nil, nil',
		'unix again');
	answers("set_peer_up('backend', '$text')", 'true, nil, nil',
		'by the text of the file');
	is(peer('backend', '127.0.0.1:8084')->{state}, 'up', 'which is up');
	answers("set_peer_down('backend', '$text')", 'true, nil, nil', 'and down');

	like($t->find_in_log(qr/"other" server .*state down -> up/),
		qr/\[notice\] .*revision 2, client: 127.0.0.1, server: .*POST \/lua/,
		'a line in the log, with the name of the upstream');
}

sub members {
	answers('add_peer("other", "127.0.0.1:8083")', 'true, nil, nil');
	is(servers('other'), '127.0.0.1:8081 127.0.0.1:8085 127.0.0.1:8083',
		'the last of the list');
	is_deeply(burst(uri => '/other', n => 30, concurrency => 1)->{by_body},
		{ 8081 => 10, 8083 => 10, 8085 => 10 }, 'gets requests at once');
	answers('add_peer("other", "127.0.0.1:8083")',
		'false, nil, "Internal server error"', 'add what is there');
	answers('remove_peer("other", "127.0.0.1:8083")', 'true, nil, nil');
	answers('remove_peer("other", "127.0.0.1:8083")',
		'false, nil, "Internal server error"', 'remove what is not there');
	is_deeply(burst(uri => '/other', n => 30, concurrency => 1)->{by_body},
		{ 8081 => 15, 8085 => 15 }, 'gets none any more');
	answers('remove_peer("hashed", "127.0.0.1:8081")',
		'false, nil, "Internal server error"', 'remove the last one');
	is(servers('hashed'), '127.0.0.1:8081', 'it stays');
	answers('set_peer_down("hashed", "127.0.0.1:8081")', 'true, nil, nil');
	answers('remove_peer("hashed", "127.0.0.1:8081")',
		'false, nil, "Internal server error"', 'even if it is down');
	answers('set_peer_up("hashed", "127.0.0.1:8081")', 'true, nil, nil');
	like($t->find_in_log(qr/a script was refused/),
		qr/\[info\] .*a script was refused: server "127.0.0.1:\d+" exists/,
		'the log says why');
}

sub updates {
	my $update = sub ($params, $wanted, $name = $params) {
		answers("update_peer('other', '127.0.0.1:8085', $params)", $wanted,
			"update_peer $name");
		my $peer = peer('other', '127.0.0.1:8085');
		return join ' ', @$peer{
			qw/weight max_fails fail_timeout max_conns state/};
	};
	my $done = 'true, nil, nil';

	is($update->('{ weight = 1, max_fails = 2, fail_timeout = 30, down = 1 }',
		$done), '1 2 30s 0 down', 'all of it');
	is($update->('{ down = 0 }', $done), '1 2 30s 0 up', 'down = 0');
	is($update->('{ down = true }', $done), '1 2 30s 0 down', 'down = true');
	is($update->('{ down = "0", weight = "7" }', $done), '7 2 30s 0 up',
		'digits');
	is($update->('{ max_conns = 5, colour = "red", [1] = 2 }', $done),
		'7 2 30s 5 up', 'unknown keys are ignored');
	is($update->('{}', $done), '7 2 30s 5 up', 'nothing');
	is($update->('{ weight = 1, max_fails = 1, fail_timeout = 10, max_conns = 0 }',
		$done), '1 1 10s 0 up', 'as it was');
}

# Each text of a failure.
sub refusals {
	my $peer = '"127.0.0.1:8081"';
	my %calls = (
		get_servers => '', set_peer_down => ", $peer",
		set_peer_up => ", $peer", add_peer => ", $peer",
		remove_peer => ", $peer", update_peer => ", $peer, {}",
	);

	for my $fn (sort keys %calls) {
		answers("$fn('$_'$calls{$fn})", 'false, nil, "Upstream not found"')
			for 'nobody', $fn eq 'get_servers' ? () : qw/zoneless excluded/;
	}

	answers("$_('other', '127.0.0.1:8099'"
		. ($_ eq 'update_peer' ? ', {})' : ')'),
		'false, nil, "Internal server error"')
		for qw/set_peer_down set_peer_up remove_peer update_peer/;
	answers('set_peer_down("guarded", "127.0.0.1:8081")',
		'false, nil, "Internal server error"', 'upstream_guard');
	answers('add_peer("other", "app.example.com:80")',
		'false, nil, "Internal server error"', 'a name is no address');
}

sub peers {
	my $peer = sub ($server, %other) {
		my %peer = (server => "\"$server\"", name => "\"$server\"",
			weight => 1, max_conns => 0, conns => 0, max_fails => 1,
			fail_timeout => 10, backup => 'false', %other);
		return '{' . join(', ', map { "$_=$peer{$_}" } sort keys %peer) . '}';
	};
	my @primaries = (
		$peer->('127.0.0.1:8081'),
		$peer->('[::1]:8082', weight => 2, max_fails => 3,
			fail_timeout => 60, max_conns => 9),
		$peer->($socket, down => 'true'),
	);
	my @backups = map { $peer->(@$_) } [ '127.0.0.1:8083', backup => 'true' ],
		[ $text, backup => 'true', down => 'true',
			name => '"127.0.0.1:8084"' ];
	my $list = sub (@peers) { 'true, {' . join(', ', @peers) . '}, nil' };

	answers('get_peers("backend")', $list->(@primaries, @backups));
	answers('get_primary_peers("backend")', $list->(@primaries));
	answers('get_backup_peers("backend")', $list->(@backups));
	answers('get_backup_peers("other")', $list->());
	answers('get_peers("zoneless")', $list->($peer->('127.0.0.1:8081')),
		'what is static can be read');
	answers("get_${_}peers('nobody')", 'false, nil, "upstream not found"')
		for '', 'primary_', 'backup_';

	answers('add_primary_peer("other", "127.0.0.1:8082")', 'true, nil, nil');
	answers('add_backup_peer("other", "127.0.0.1:8083")', 'true, nil, nil');
	is(lua('local _, p = du.get_backup_peers("other") return #p, p[1].name'),
		'1, "127.0.0.1:8083"', 'a backup');
	answers('add_backup_peer("other", "127.0.0.1:8083")',
		'false, nil, "server "127.0.0.1:8083" exists"', 'it exists');
	answers('add_primary_peer("other", "127.0.0.1:8083")',
		q{false, nil, "can't change server type (primary<->backup)"},
		'in the other list');
	answers('add_backup_peer("hashed", "127.0.0.1:8083")',
		'false, nil, "balancing method does not support parameter "backup""',
		'no backups under ip_hash');
	answers('add_primary_peer("nobody", "127.0.0.1:8083")',
		'false, nil, "upstream not found"');
	answers("remove_peer('other', '127.0.0.1:$_')", 'true, nil, nil')
		for 8082, 8083;

	is(lua('local s, n = require "ngx.dynamic_upstream.stream", 0'
		. ' for name in pairs(du) do n = n + 1 assert(s[name], name)'
		. '   local ok, data, err = s[name]("a", "b", {})'
		. '   assert(ok == false and data == nil'
		. '     and err == "stream: not yet supported", name) end return n'),
		'13', 'each function is there for stream, and says that it is not');
}

sub own_lists {
	is(lua('local all = uc.upstreams() local words = {}'
		. ' for i, u in ipairs(all) do words[i] = u.name .. " "'
		. '   .. tostring(u.zone) .. " " .. tostring(u.method) .. " "'
		. '   .. tostring(u.static) end'
		. ' return table.concat(words, "|")'),
		'"backend backend round_robin nil|other zone_of_other round_robin nil'
		. '|guarded guarded round_robin nil|hashed hashed ip_hash nil'
		. '|large large round_robin nil'
		. '|zoneless nil round_robin upstream has no "zone": '
		. 'add "upstream_auto_zone 64k;" or "zone NAME 64k;"'
		. '|excluded excluded round_robin "upstream_dynamic off" is set"',
		'upstreams');
	own('status("guarded")', '{method="round_robin", name="guarded", '
		. 'revision=0, servers={{active=0, backup=false, down=false, '
		. 'fail_timeout=10, fails=0, id=0, max_conns=0, max_fails=1, '
		. 'name="127.0.0.1:8081", server="127.0.0.1:8081", state="up", '
		. 'weight=1}}, zone="guarded"}');

	my $server = lua('return uc.status("backend").servers[5]');
	my ($at) = $server =~ s/at=(\d+)/at=AT/ ? $1 : 0;
	is($server, '{active=0, backup=true, down=true, fail_timeout=10, fails=0, '
		. 'id=4, max_conns=0, max_fails=1, name="127.0.0.1:8084", '
		. 'reason={at=AT, by="operator", client="127.0.0.1"}, '
		. "server=\"$text\", state=\"down\", weight=1}", 'a reason');
	ok(abs($at - time) < 30, 'of now');
}

sub own_changes {
	is(lua('return uc.revision("guarded"), uc.revision("zoneless")'), '0, 0',
		'revision');

	# One revision for all of them.
	is(lua('local before = uc.revision("zone_of_other")'
		. ' local done = uc.down("other", { "127.0.0.1:8081", 1 },'
		. '   { note = "upgrade", force = true })'
		. ' return done.revision - before, done.changed, done.servers, done.id'),
		'1, 2, 2, nil', 'several servers');
	is(lua('local s = uc.status("other").servers return s[1].state, '
		. 's[1].reason.note, s[2].state, s[2].reason.note'),
		'"down", "upgrade", "down", "upgrade"', 'what became of them');
	is(lua('return uc.up("other", { 0, 1 }).changed'), '2', 'up again');
	is(lua('uc.drain("other", 0) return uc.status("other").servers[1].state'),
		'"draining"', 'drain');
	is(lua('uc.set("other", 0, { state = "up", weight = 5, max_conns = 2,'
		. ' max_fails = 3, fail_timeout = 4 })'
		. ' local s = uc.status("other").servers[1] return s.state, s.weight,'
		. ' s.max_conns, s.max_fails, s.fail_timeout'), '"up", 5, 2, 3, 4',
		'set');
	is(lua('uc.set("other", 0, { weight = 1, max_conns = 0, max_fails = 1,'
		. ' fail_timeout = 10 })'), '', 'as it was');

	my $id = lua('return uc.add("other", "127.0.0.1:8083", { weight = 3,'
		. ' backup = true, state = "down" }, { note = "new" }).id');
	like($id, qr/\A\d+\z/, 'add: its id');
	is(lua("local s = uc.status('other').servers[3] return s.id == $id,"
		. ' s.weight, s.backup, s.state, s.reason.note'),
		'true, 3, true, "down", "new"', 'add: what it is');
	is(lua("local done = uc.readdress('other', $id, '127.0.0.1:8082')"
		. ' local s = uc.status("other").servers[3]'
		. " return done.changed, s.id == $id, s.name"),
		'1, true, "127.0.0.1:8082"', 'readdress');
	is(lua("return uc.remove('other', $id).servers"), '2', 'remove');
	is(lua('uc.remove("guarded", 0, { force = true })'
		. ' local s = uc.status("guarded") return #s.servers, s.revision'),
		'0, 1', 'the last one can be removed, if that is what is wanted');
	is(lua('return uc.add("guarded", "127.0.0.1:8081").servers'), '1',
		'and added');
}

sub own_refusals {
	own('status("nobody")', 'nil, "upstream is not found: "nobody"", "UpstreamNotFound"');
	own('revision("nobody")',
		'nil, "upstream is not found: "nobody"", "UpstreamNotFound"');
	own('down("zoneless", 0)',
		q{nil, "only for upstream with 'zone'", "UpstreamStatic"});
	own('down("other", { 0, 99 })',
		'nil, "server or peer is not found: "99"", "ServerNotFound"');
	is(peer('other', '127.0.0.1:8081')->{state}, 'up', 'all or nothing');
	own('down("guarded", 1)', 'nil, "guard: 0 usable servers would be left, '
		. 'at least 1 must be, use "force="", "Guarded"');
	own('add("other", "127.0.0.1:8081")',
		'nil, "server "127.0.0.1:8081" exists", "EntryExists"');
	own('set("other", 0, { weight = 0 })', 'nil, "invalid weight "0": use '
		. 'drain or down to stop new requests", "BadParameter"');
}

# Whichever worker makes a change, all of them show it when the call is over.
sub every_worker {
	my (%makers, %readers);
	my $late = 0;

	for my $i (1 .. 100) {
		my $r = http_post('/lua', 'return du.update_peer("other", '
			. "'127.0.0.1:@{[ port(8081) ]}', { max_fails = $i })");
		$makers{ $r->header('X-Worker') }++;

		for (1 .. 4) {
			$r = http_post('/lua',
				'return select(2, du.get_servers("other"))[1].max_fails');
			$readers{ $r->header('X-Worker') }++;
			$late++ if $r->body() ne $i;
		}
	}

	is(keys %makers, 4, 'every worker made changes');
	is(keys %readers, 4, 'every worker was asked');
	is($late, 0, 'none was late');
}

# What a worker takes does not grow with the number of calls.
sub memory {
	my $calls = <<'LUA';
for i = 1, 12500 do
    du.get_servers("backend")
    du.get_peers("other")
    du.set_peer_down("other", "127.0.0.1:8081")
    du.set_peer_up("other", "127.0.0.1:8081")
    du.get_upstreams()
    du.set_peer_down("other", "127.0.0.1:8099")
    uc.status("backend")
    uc.down("other", { "127.0.0.1:8099" }, { note = "never" })
end
collectgarbage()
local kib
for line in io.lines("/proc/self/status") do
    kib = kib or line:match("^VmRSS:%s*(%d+)")
end
return ngx.worker.pid() .. " " .. kib
LUA
	my %first;
	my $grown;

	# The first one makes the worker and LuaJIT as large as they get.
	for (1 .. 40) {
		my ($pid, $kib) = lua($calls, timeout => 60) =~ /"(\d+) (\d+)"/;
		$grown = $kib - $first{$pid} if $first{$pid};
		last if defined $grown;
		$first{$pid} = $kib;
	}

	cmp_ok($grown, '<', 1024, '100,000 calls take no memory, in KiB')
		or diag(explain(\%first));
}
