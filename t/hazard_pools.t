#!/usr/bin/env perl

# Tests under load: three pools with three balancers, whose servers are added,
# removed, readdressed, taken down and up and given other weights, hundreds of
# times a second, by three clients at once.  Many of them refuse.  No request
# fails, since the last pool always has a server that answers; each pool serves
# when it can; nothing is left behind.
#
# TEST_NGINX_LONG is the time in seconds for each set of pools, TEST_NGINX_RATE
# the changes a second to aim at.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Churn qw/outcome/;
use Test::Nginx::Leaks;
use Test::Nginx::Process qw/spawn alive wait_until end_process/;

# Each is a process with an actor for each pool.
use constant CLIENTS => 3;

# How many of them may add backups, see t/hazard_members.t.
use constant BACKUPS => 2;

my $long = $ENV{TEST_NGINX_LONG};
my $seconds = $long || 2;
my $rate = $ENV{TEST_NGINX_RATE} // ($long ? 1000 : 600);

# For each pool the ports of its servers, on an address of each client: one that
# answers (the second pool's late) and others that refuse.  The last pool has
# one that nobody touches besides.
my %PORTS = (
	a => [ 8082, 8086, 8087 ], b => [ 8083, 8088, 8089 ], c => [ 8084, 8085 ],
);
my @POOLS = sort keys %PORTS;
use constant ALWAYS => '127.0.0.1:8081';

# Name, balancer of each pool, parameters of the first.
my @sets = (
	[ 'mixed', [ '', 'least_conn;', 'hash $request_id consistent;' ], '' ],
	[ 'other', [ 'random two;', 'hash $request_id;', 'ip_hash;' ],
		'failback=1s' ],
);

my $t = Test::Nginx->new(timeout => 120 + 20 * ($seconds + 5))->has(qw/
	module http proxy realip upstream_zone upstream_keepalive
	upstream_least_conn upstream_ip_hash upstream_hash upstream_random wrk
/);

push @sets, [ 'newest', [ 'least_time header inflight;',
	'sticky cookie route;', 'random;' ], '' ]
	if $t->has_module_built('upstream_least_time')
	&& $t->has_module_built('sticky');

$t->plan(13 * @sets);

# Where the actor of a client is in a pool.
sub own ($pool, $client) {
	return map { "127.0.0.1$client:$_" } @{ $PORTS{$pool} };
}

# Each pool begins with one that answers.
my $upstreams = join '', map {
	my ($name, $balancers, $failback) = @$_;
	my @balancers = @$balancers;
	(<<"BLOCK", map { my $pool = $_; <<"BLOCK" } @POOLS);
    upstream $name {
        pool ${name}_c priority=3;
        pool ${name}_b priority=2;
        pool ${name}_a $failback;
    }

BLOCK
    upstream ${name}_$pool {
        zone ${name}_$pool 1m;
        ${\ shift @balancers }
        server ${\ (own($pool, 1))[0] };
        ${\ ($pool eq 'c' ? "server @{[ ALWAYS ]};" : '') }
        keepalive 16;
    }

BLOCK
} @sets;

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $upstreams);
%%TEST_GLOBALS%%
worker_processes 4;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    keepalive_requests 100000000;

    # Each attempt is an address, whatever became of its server.
    map $upstream_addr $garbage {
        "~^127\.0\.0\.\d+:\d+(, 127\.0\.0\.\d+:\d+)*$" "";
        default 1;
    }
    # Clients that leave at the end have no reply.
    map $status$garbage $bad { 200 ""; 499 ""; default 1; }
    log_format bad '$time_iso8601 $status $request_uri '
                   '"$upstream_addr" $upstream_status $pid';
    access_log %%TESTDIR%%/bad.log bad if=$bad;

    # The pool that answered, after another one had refused or not.
    map $upstream_addr $answered {
        "~:%%PORT_8082%%$" a;
        "~:%%PORT_8083%%$" b;
        default c;
    }
    map $upstream_addr $refused {
        "~:(%%PORT_8086%%|%%PORT_8087%%), .*:(?!%%PORT_8082%%)\d+$" +;
        "~:(%%PORT_8088%%|%%PORT_8089%%), .*:(?!%%PORT_8083%%)\d+$" +;
        default "";
    }
    log_format pool '$group $answered$refused';
    access_log %%TESTDIR%%/pool.log pool buffer=64k flush=100ms;

%%UPSTREAMS%%
    server {
        # spreads clients over the workers evenly
        listen 127.0.0.1:8080 reuseport;
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Real-IP;

        %%KEEPALIVE%%

        location ~ ^/(?<group>\w+)/$ {
            proxy_pass http://$group;
        }

        location ~ ^/direct/(?<group>\w+)$ {
            access_log off;
            proxy_pass http://$group;
        }

        %%CHURN%%
    }
}
CONF

my @clients = 1 .. CLIENTS;
my $backends = Test::Nginx->servers(120 + 20 * ($seconds + 5),
	[ [ ALWAYS, map { my $n = $_; map { "127.0.0.1$n:$_" } 8082, 8084, 8085 }
		@clients ], 'location / { return 200 "$server_port\n"; }' ],
	[ [ map { "127.0.0.1$_:8083" } @clients ],
		'location / { proxy_pass http://127.0.0.1:8090/; }' ]);

$backends->backend('127.0.0.1:8090', delay => 0.1, body => port(8083) . "\n");

# Clients out of many networks.
$t->write_file('wrk.lua', <<'LUA');
local n = 0
function request()
	n = n + 1
	return wrk.format("GET", nil, {
		["X-Real-IP"] = "10." .. n * 7 % 251 .. "." .. n % 239 .. ".1"
	})
end
LUA

# The first list of backups of a pool is made at run time, and stays.
my @pages = (pages => { map { $_ => 1 }
	map { my $set = $_->[0]; map { "${set}_$_" } @POOLS } @sets });
$backends->run();
$t->leak_keys('/upstreamstatus', port(8080), @pages);
$t->run();

my $leaks = Test::Nginx::Leaks->new(uri => '/upstreamstatus',
	port => port(8080), @pages);
$leaks->baseline();

hazard(@$_) for @sets;

sub hazard ($name, $balancers, $failback) {
	my $mark = $t->log_mark();
	my %before = served($name);
	my @names = map { "${name}_$_" } @POOLS;
	my $was = get_json('/upstreamstatus')->{upstreams};

	my $churn = Test::Nginx::Churn->start(dir => $t->testdir(),
		seconds => $seconds, rate => $rate / CLIENTS,
		members => members($name, $balancers));
	my $load = wrk($name);
	my $changes = $churn->finish();
	$load = $load->();

	# The access log is written late.
	my %served;
	$t->wait_for(sub {
		my %now = served($name);
		my $sum = 0;
		$sum += $served{$_} = ($now{$_} // 0) - ($before{$_} // 0)
			for qw/a b b+ c c+/;
		return $sum >= $load->{total};
	}, 5, "$name: all requests are logged");

	# Of a long run the figures are wanted, too.
	my $say = $long ? \&diag : \&note;
	$say->(sprintf '%s: %d changes in %.1f s, %.0f/s; %d requests, %.0f/s; '
		. 'answered by %s', $name, $changes->{acked}, $changes->{seconds},
		$changes->{acked} / $changes->{seconds}, $load->{total},
		$load->{total} / $seconds,
		join ', ', map { "$_ $served{$_}" } sort keys %served);

	is($load->{failed}, 0, "$name: no request failed")
		or diag($load->{text}, attempts($name));
	is_deeply([ attempts($name) ], [], "$name: each attempt was logged");
	is_deeply([ $t->grep_log(qr/no live upstreams/, $mark) ], [],
		"$name: there always was a server to choose");
	# The one that waits may have to do so all the time.
	my %answered = (a => $served{a} || $failback, b => $served{b} + $served{'b+'},
		c => $served{c} + $served{'c+'});
	is_deeply([ grep { !$answered{$_} } sort keys %answered ], [],
		"$name: each pool answered");
	cmp_ok($served{'b+'} + $served{'c+'}, '>', 0,
		"$name: also after another had been tried");

	is_deeply([ $changes->{failed}, $changes->{wrong} ], [ {}, [] ],
		"$name: each change was made, and its reply shows it");
	cmp_ok($changes->{acked}, '>', 0.1 * $rate * $seconds, "$name: changes");

	my $status = get_json('/upstreamstatus');
	my $revisions = 0;
	$revisions += $status->{upstreams}{$_}{revision} - $was->{$_}{revision}
		for @names;
	is_deeply([ $revisions, outcome($status, $changes->{model},
		map { my $pool = $_; map { own($pool, $_) } @clients } @POOLS) ],
		[ $changes->{acked} ], "$name: all of them, and nothing else");

	restore($name);
	is_deeply([ $leaks->problems() ], [], "$name: leak keys");

	# What was left alone for its failures is so for a second at most.
	is(join(' ', map { direct($_) } @names), '8082 8083 8081,8084',
		"$name: each pool has its own servers");
	ok($t->wait_for(sub {
		return http_get("/$name/")->body() eq port(8082) . "\n";
	}, 5, "$name: the first pool serves"), "$name: the first pool serves");
	is(join(' ', map { "$_->{pool} $_->{state}" } @{ get_json(
		'/upstreamstatus')->{upstreams}{$name}{pools} }),
		"${name}_a active ${name}_b standby ${name}_c standby",
		"$name: and the status says so");
	my $got = burst(uri => "/$name/", n => 20, concurrency => 1);
	is_deeply($got->{by_body}, { port(8082) . "\n" => 20 },
		"$name: and no other");
}

# For each client an actor in each pool.
sub members ($name, $balancers) {
	my $with_backups = $t->has_version('1.27.3') ? CLIENTS : BACKUPS;

	return [ map {
		my $client = $_;
		[ map {
			my $pool = $POOLS[$_];
			my $balancer = $balancers->[$_];
			my @own = own($pool, $client);
			+{
				upstream => "${name}_$pool", servers => \@own,
				weights => $balancer =~ /consistent/ ? [ 1, 2 ] : [ 1, 2, 5 ],
				backups => $balancer =~ /\A(?:|least_conn;|least_time.*)\z/
					&& $client <= $with_backups,
				present => $client == 1 ? [ $own[0] ] : [],
			}
		} 0 .. $#POOLS ]
	} @clients ];
}

# Runs wrk; what is returned waits for its end.
sub wrk ($name) {
	my $file = $t->testdir() . "/wrk-$name";
	my $duration = int($seconds + 0.5);
	my $pid = spawn(out => $file, seconds => $seconds + 30, exec => [
		'wrk', '-t', 1, '-c', 64, '-d', "${duration}s", '--timeout', '10s',
		'-s', $t->testdir() . '/wrk.lua',
		'http://127.0.0.1:' . port(8080) . "/$name/",
	]);

	return sub {
		wait_until(sub { !alive($pid) }, $seconds + 25) or end_process($pid);
		my $text = $t->read_file("wrk-$name");
		my ($total) = $text =~ /(\d+) requests in / or die "wrk: $text\n";
		my $failed = 0;
		$failed += $1 if $text =~ /Non-2xx or 3xx responses: (\d+)/;
		if (my ($errors) = $text =~ /Socket errors: (.*)/) {
			$failed += $_ for $errors =~ /(\d+)/g;
		}
		return { total => $total, failed => $failed, text => $text };
	};
}

# How many requests each pool answered.
sub served ($name) {
	my %count;
	for (split /\n/, $t->read_file('pool.log')) {
		$count{$1}++ if /\A\Q$name\E (\S+)\z/;
	}
	return %count;
}

# As configured.  No request is under way but those that wrk gave up.
sub restore ($name) {
	for my $pool (@POOLS) {
		my $upstream = "${name}_$pool";
		my ($first) = own($pool, 1);

		for my $peer (@{ upstream($upstream)->{peers} }) {
			next if $peer->{server} eq $t->expand(ALWAYS);
			my $r = control("/upstreamcontrol?upstream=$upstream&remove="
				. "&server=$peer->{server}");
			fail("$name: removal") unless $r->status() == 200;
		}

		$t->wait_for(sub { upstream($upstream)->{zombies} == 0 }, 5,
			"$upstream: no request uses what was removed");
		my $r = control("/upstreamcontrol?upstream=$upstream&add="
			. "&server=$first");
		fail("$name: addition") unless $r->status() == 200;
	}
}

sub upstream ($name) {
	return get_json("/upstreamstatus?upstream=$name&verbose=")
		->{upstreams}{$name};
}

# The servers that answer for a pool alone, by their ports.
sub direct ($name) {
	my %seen;
	for my $n (1 .. 30) {
		my $r = http_get("/direct/$name",
			headers => { 'X-Real-IP' => '10.' . $n * 7 . ".$n.1" });
		$seen{ $t->logical(':' . $r->body()) =~ s/[:\s]//gr } = 1;
	}
	return join ',', sort keys %seen;
}

# The first of the requests that failed, or whose attempts are garbage.
sub attempts ($name) {
	my @lines = grep { m{ /$name/ } } split /^/,
		$t->logical($t->read_file('bad.log'));
	splice @lines, 20 if @lines > 20;

	return @lines;
}
