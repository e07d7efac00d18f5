#!/usr/bin/env perl

# Tests for workers that die in the middle of a change, at each moment that has
# a name in the source, or while they read: the change is there or it is not,
# and other workers go on, unless a lock of nginx's own peers died with the
# worker.  Then changes are refused in words, and a reload is the end of it.
# Nobody waits for long for one that is stopped.
#
# The module has to be built for it: make hazard-deaths.
#
# TEST_NGINX_LONG: each kind of change at each moment.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::IP;
use Test::More;

use Test::Nginx;
use Test::Nginx::Process qw/wait_until alive/;

my $t = Test::Nginx->new(timeout => 400)->has(qw/module http proxy upstream_zone/);

plan(skip_all => 'a module whose workers die when told: make hazard-deaths')
	unless has_deaths();

# What is changed, and then: servers that are the same in all but this.
my @KINDS = (
	[ set => 'servers=127.0.0.1:8081,127.0.0.1:8082&weight=7&max_fails=5' ],
	[ add => 'add=&server=127.0.0.1:8084&weight=3' ],
	[ remove => 'remove=&id=1' ],
	[ move => 'id=1&server=127.0.0.1:8084' ],
);

# Moment, whether the change is there then, and whether the others are left with
# a lock of nginx's.  The order is that of a change.
my @MOMENTS = (
	[ prepared => 0, 0 ], [ reserved => 0, 0 ], [ applied => 1, 0 ],
	[ done => 1, 0 ],
);
my @STUCK = (
	[ seated => 0 ], [ written => 0 ], [ counted => 1 ], [ published => 1 ],
	[ edited => 1 ], [ reading => 0 ],
);

# The short form takes each kind once.
my @stuck = $ENV{TEST_NGINX_LONG}
	? map { my $moment = $_; map { [ @$moment, $_ ] } @KINDS } @STUCK
	: ([ @{ $STUCK[1] }, $KINDS[1] ], [ @{ $STUCK[4] }, $KINDS[2] ],
		[ @{ $STUCK[5] }, $KINDS[0] ]);

$t->plan(@MOMENTS * @KINDS * 6 + 3 + @stuck * 9 + 12 + 1);

# Each change has its own.
my @upstreams = ('u', (map { my $moment = $_->[0];
	map { "${moment}_$_->[0]" } @KINDS } @MOMENTS),
	map { "$_->[0]_$_->[-1][0]" } @stuck);
my $upstreams = join '', map { "upstream $_ { zone $_ 256k; "
	. "server 127.0.0.1:8081; server 127.0.0.1:8082 weight=2; "
	. "server 127.0.0.1:8083; }\n" } @upstreams;

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $upstreams);
%%TEST_GLOBALS%%
env UPSTREAM_CONTROL_DEATH;
worker_processes 3;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    # Nobody dies with its locks.
    upstream other {
        zone other 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    server {
        listen 127.0.0.1:8080;

        location /status {
            upstream_status;
        }

        location /control {
            upstream_control;
        }

        location /worker {
            return 200 $pid;
        }

        location ~ ^/u/(?<name>\w+)$ {
            proxy_pass http://$name;
        }
    }
}
CONF

my $file = $t->testdir() . '/death';
$ENV{UPSTREAM_CONTROL_DEATH} = $file;

# The master opens what a dead worker had locked, and says so.
$t->allow_log(qr/shared memory zone "[^"]+" was locked by \d+/);
$t->backend("127.0.0.1:$_") for 8081 .. 8084;
$t->run();

# What died before it was in a list stays in the zone until a reload.
$t->leak_keys('/status', port(8080), pages => {
	map { $_ => 2 } @upstreams });

for my $moment (@MOMENTS) {
	goes_on(@$moment, @$_) for @KINDS;
}
while_looking();
left_locked(@$_) for @stuck;
stopped();
is_deeply([ $t->grep_log(qr/panicked/) ], [], 'nothing else went wrong');

# The feature of the build shows by the name that it reads.
sub has_deaths () {
	open my $fh, '<:raw', $ENV{TEST_NGINX_MODULE} or return 0;
	local $/;

	return index(<$fh>, 'UPSTREAM_CONTROL_DEATH') >= 0;
}

sub act ($args, $name = 'u') {
	return control("/control?upstream=$name&$args");
}

sub text ($r) { return $r->told() }

# All that a change may touch, with the revision.
sub shown ($name = 'u') {
	my $all = get_json("/status?upstream=$name&verbose=")->{upstreams}{$name};

	return join ' ', $all->{revision}, map {
		"$_->{name}:$_->{weight}:$_->{max_fails}:$_->{state}"
	} @{ $all->{peers} };
}

sub faults ($name) {
	my $leaks = get_json("/status?upstream=$name&verbose=")->{upstreams}{$name}{leaks};
	my $primary = $leaks->{primary};

	return (@{ $leaks->{faults} }, map { "$_->[0] is not $_->[1]" } grep {
		$primary->{ $_->[0] } != $primary->{ $_->[1] }
	} [qw/number counted/], [qw/total_weight counted_weight/],
		[qw/tries counted_usable/]);
}

# A connection to a worker that something is to happen to, and who it is.
sub victim ($what) {
	my $s = IO::Socket::IP->new(PeerHost => '127.0.0.1',
		PeerPort => port(8080), Timeout => 5) or die "connect: $@\n";
	my $got = ask($s, '/worker', 'keep-alive', qr/\r\n\r\n\d+\z/);
	my ($pid) = $got =~ /(\d+)\z/;

	$t->write_file('death.new', $what);
	rename "$file.new", $file or die "rename: $!\n";

	return ($s, $pid);
}

# A worker gets the request, and dies at the moment; what it replied, and who it
# was.
sub dies ($moment, $uri) {
	my ($s, $pid) = victim($moment);

	$t->expect_exit($pid);
	my $got = ask($s, $t->expand($uri), 'close', qr/(?!)/);
	wait_until(sub { !alive($pid) }, 10);

	# For the next one, if there was no such moment.
	unlink $file and return ('nobody died', $pid);
	return (alive($pid) ? "$pid lives" : $got, $pid);
}

sub request ($s, $uri, $connection) {
	print {$s} "GET $uri HTTP/1.1\r\nHost: localhost\r\n"
		. "Connection: $connection\r\n\r\n";
	return;
}

sub ask ($s, $uri, $connection, $end) {
	request($s, $uri, $connection);
	return hear($s, $end);
}

sub hear ($s, $end) {
	my $got = '';

	while ($got !~ $end) {
		my $r = '';
		vec($r, fileno $s, 1) = 1;
		select($r, undef, undef, 10) > 0 or last;
		sysread $s, $got, 4096, length $got or last;
	}

	return $got;
}

sub goes_on ($moment, $there, $stuck, $kind, $args) {
	my $name = "${moment}_$kind";
	my $what = "$moment, $kind";
	my $before = shown($name);
	my ($reply) = dies($moment, "/control?upstream=$name&$args");

	is($reply, '', "$what: the worker dies");

	# Whoever has it next, with the lock of the store.
	my $began = now();
	my $after = shown($name);
	is(text(act('id=0&max_conns=9', $name)) =~ s/ .*//sr, 200,
		"$what: another one changes the upstream");
	cmp_ok(now() - $began, '<', 1.5, "$what: at once");
	is_deeply([ faults($name) ], [], "$what: no faults");
	is($after, $there ? 1 . ' ' . wanted($kind) : $before,
		"$what: " . ($there ? 'all of it is there' : 'nothing of it is there'));

	# Asked for again, it is there once.
	act($args, $name);
	is(shown($name), ($there ? 2 : 1 + !$there) . ' ' . wanted($kind),
		"$what: the same again");

	$t->wait_for(sub { $t->workers() == 3 }, 10, "$what: a successor");
}

# The servers after a change of that kind.
sub wanted ($kind) {
	my ($one, $two, $three, $four) = map { '127.0.0.1:' . port($_) } 8081 .. 8084;

	return {
		set => "$one:7:5:up $two:7:5:up $three:1:1:up",
		add => "$one:1:1:up $two:2:1:up $three:1:1:up $four:3:1:up",
		remove => "$one:1:1:up $three:1:1:up",
		move => "$one:1:1:up $four:2:1:up $three:1:1:up",
	}->{$kind};
}

sub id_of ($port) {
	my ($peer) = grep { $_->{name} eq '127.0.0.1:' . port($port) }
		@{ get_json('/status?upstream=u')->{upstreams}{u}{peers} };

	return $peer->{id};
}

# The store's lock dies with a reader.
sub while_looking {
	my $before = shown();
	my ($reply) = dies('looking', '/status');
	is($reply, '', 'looking: the worker dies');
	is(shown(), $before, 'looking: another one looks');
	is(act('id=' . id_of(8081) . '&max_conns=8')->status(), 200,
		'looking: another one changes');
	$t->wait_for(sub { $t->workers() == 3 }, 10, 'looking: a successor');
}

# A lock of nginx's peers died with the worker: nobody opens it again.
sub left_locked ($moment, $there, $row) {
	my ($kind, $args) = @$row;
	my $name = "${moment}_$kind";
	my $what = "$moment, $kind";
	my $before = shown($name);
	my ($reply) = dies($moment, "/control?upstream=$name&$args");

	is($reply, '', "$what: the worker dies");

	# Whoever wants the lock gives it up.
	my $began = now();
	my $status = http_start(uri => "/status?upstream=$name");
	my $change = http_start(uri => "/control?upstream=$name&id=0&max_conns=9");
	my $refused = text(http_finish($change));
	my $shown = http_finish($status)->json()->{upstreams}{$name};
	my $words = 'a worker died with the lock of the upstream';

	is($refused, "503 $words: reload nginx", "$what: a change is refused");
	# One that only read leaves others to do so, too.
	is_deeply([ @$shown{qw/dynamic reason/} ], $moment eq 'reading'
		? [ JSON::PP::true(), undef ] : [ JSON::PP::false(), "$words, reload nginx" ],
		"$what: what the status says");
	cmp_ok(now() - $began, '<', 6, "$what: nobody waits for long");
	is(act('server=127.0.0.1:8081&max_conns=3', 'other')->status(), 200,
		"$what: others can be changed");

	$t->recover();
	my ($revision, $servers) = split / /, shown($name), 2;
	my ($old, $file) = split / /, $before, 2;
	is($revision > $old, !!$there, "$what: it was " . ($there ? 'there' : 'not there'));
	is($servers, $file, "$what: a reload takes the file");
	is(act('server=127.0.0.1:8081&weight=4', $name)->status(), 200,
		"$what: and it can be changed");
	is(join(' ', sort keys %{ burst(uri => "/u/$name", n => 12)->{by_body} }),
		'8081 8082 8083', "$what: and serves");
	$t->leak_baseline();
}

# A worker is stopped with the store's lock, after the peers of its change were
# set and before it noted that: whoever has a request sees that something is to
# be caught up with.
sub stopped {
	my ($s, $pid) = stops('applied', '/control?upstream=u&peer=0&weight=3');
	my $words = qr/\A503 process $pid holds the lock of the module's zone, and does not go on: /;

	# Each of the two others waits once.
	my $began = now();
	my @got = map { act('id=0&max_conns=7', 'other') } 1 .. 6;
	cmp_ok(now() - $began, '<', 6, 'stopped: nobody waits for long');
	is(scalar(grep { text($_) =~ $words } @got), 6,
		'stopped: changes are refused in words') or diag(map { text($_) } @got);
	is($got[0]->header('Retry-After'), 1, 'stopped: for now');

	my $all = get_json('/status')->{upstreams};
	is_deeply([ map { @{ $all->{$_} }{qw/dynamic reason/} } qw/u other/ ],
		[ (JSON::PP::false(), "process $pid holds the lock of the module's zone, "
			. 'and does not go on: resume it or end it') x 2 ], 'stopped: what the status says');
	is(scalar @{ $all->{other}{peers} }, 2, 'stopped: which shows the servers');

	$began = now();
	is(burst(uri => '/u/u', n => 30, concurrency => 1)->{failed}, 0,
		'stopped: requests are served');
	cmp_ok(now() - $began, '<', 1, 'stopped: without waiting');

	kill CONT => $pid;
	like(hear($s, qr/weight=3/), qr/ 200 OK/, 'stopped: it makes its change');
	is(act('id=0&max_conns=6', 'other')->status(), 200,
		'stopped: as others do');

	# The master does not wait for long either.
	($s, $pid) = stops('applied', '/control?upstream=u&peer=0&weight=4');
	my %old = map { $_ => 1 } $t->workers();
	$t->signal('HUP');
	$t->wait_for(sub {
		my @new = grep { !$old{$_} } $t->workers();
		return @new == 3 && $t->workers() == 4;
	}, 10, 'stopped: new workers');
	is(text(act('peer=0&down=')), "501 upstream is static: a process holds the "
		. "lock of the module's zone, reload nginx once more",
		'stopped: a reload goes on without it');
	kill CONT => $pid;
	like(hear($s, qr/weight=4/), qr/ 200 OK/, 'stopped: it ends what it began');
	$t->reload(old_gone => 1);
	is(act('peer=0&max_conns=5')->status(), 200,
		'stopped: the next reload takes control');
	$t->leak_baseline();
	return;
}

# A worker gets the request, and stops at the moment; the connection, and who it
# is.
sub stops ($moment, $uri) {
	my ($s, $pid) = victim("stop $moment");

	request($s, $uri, 'close');
	wait_until(sub { is_stopped($pid) }, 10) or die "$pid goes on\n";

	return ($s, $pid);
}

sub is_stopped ($pid) {
	open my $fh, '<', "/proc/$pid/stat" or return 0;
	return <$fh> =~ /\) T /;
}
