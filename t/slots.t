#!/usr/bin/env perl

# Tests for the slots that servers come into before nginx 1.27.3: those without
# a server show nowhere, whoever came and left.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new(log_level => 'debug')->has(qw/
	module http proxy upstream_zone upstream_least_conn upstream_ip_hash
	upstream_hash upstream_random debug
/);

plan(skip_all => 'lists grow since nginx 1.27.3')
	if $t->has_version('1.27.3');

my %METHODS = (
	rr => '', least => 'least_conn;', ip => 'ip_hash;', hash => 'hash $arg_key;',
	ring => 'hash $arg_key consistent;', random => 'random;',
	two => 'random two;',
);
my @METHODS = sort keys %METHODS;

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    log_format addr '$uri $status $upstream_addr $upstream_status';
    access_log %%TESTDIR%%/addr.log addr;

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080 reuseport;

        location /status {
            access_log off;
            upstream_status;
        }

        location /control {
            access_log off;
            upstream_control;
        }

        location /conf {
            access_log off;
            upstream_conf;
        }

        %%BY_NAME%%
    }
}
CONF
	map { "upstream $_ { zone $_ 256k; $METHODS{$_} server 127.0.0.1:8081; "
		. "server 127.0.0.1:8082 weight=3; }\n" } @METHODS);

# A change, and the ports of the servers that each upstream has then.
my @STEPS = (
	[ undef, 8081, 8082 ],
	[ 'add=&server=127.0.0.1:8083&weight=2', 8081, 8082, 8083 ],
	[ 'remove=&server=127.0.0.1:8081', 8082, 8083 ],
	[ 'id=1&server=127.0.0.1:8084', 8084, 8083 ],
	[ 'remove=&server=127.0.0.1:8084', 8083 ],
	[ 'remove=&server=127.0.0.1:8083' ],
	[ 'add=&server=127.0.0.1:8082', 8082 ],
	[ 'add=&server=127.0.0.1:8081', 8082, 8081 ],
	[ 'server=127.0.0.1:8082&weight=3', 8082, 8081 ],
);

$t->plan(5 * @STEPS + 5);

$t->backend("127.0.0.1:$_") for 8081 .. 8084;
$t->run();
$t->leak_keys('/status', 8080);
my $mark = $t->log_mark();

for my $step (@STEPS) {
	my ($args, @ports) = @$step;
	change($args) if $args;
	served(@ports);
	shown($args // 'as configured', @ports);
}

logged();

sub change ($args) {
	for my $name (@METHODS) {
		my $r = control("/control?upstream=$name&$args");
		die "$name: $args: " . $r->told() . "\n"
			if $r->status() != 200;
	}
}

# Requests with many keys, so that each server has some; from both workers.
sub served (@ports) {
	for my $name (@METHODS) {
		my $got = burst(uri => sub ($i) { "/u/$name?key=$i" }, n => 24,
			concurrency => 6);
		my $wanted = @ports ? 200 : 502;
		die "$name: not $wanted\n" if keys %{ $got->{by_status} } != 1
			|| !$got->{by_status}{$wanted};
	}
}

# Each form has these servers of each upstream, and no others.
sub shown ($text, @ports) {
	my $servers = join ' ', map { "127.0.0.1:$_" } @ports;
	my %all = map { $_ => $servers } @METHODS;
	my $n = @ports;

	my $json = control('/status?verbose=&format=json');
	my $status = $json->json()->{upstreams};
	is_deeply({ map {
		$_ => join ' ', map { $_->{name} } @{ $status->{$_}{peers} }
	} @METHODS }, \%all, "$text: JSON");
	is_deeply({ map {
		my $leaks = $status->{$_}{leaks};
		my $peers = $status->{$_}{peers};
		my $weight = 0;
		$weight += $_->{weight} for @$peers;
		my ($primary, $backup) = @$leaks{qw/primary backup/};
		# A list of backups has slots, too.
		$_ => join ' ', @$primary{qw/number counted tries zombies/},
			$primary->{total_weight} - $weight,
			map { $_ // 0 } @{ $backup // {} }{qw/number total_weight tries/};
	} @METHODS }, { map { $_ => "$n $n $n 0 0 0 0 0" } @METHODS },
		"$text: counts");

	my $lines = control('/status?format=text');
	my $metrics = control('/status?format=prometheus');
	is_deeply({ map {
		my ($part) = $lines->body() =~ /^upstream "$_": .*\n((?:.+\n)*)/m;
		$_ => join ' ', ($part // '') =~ /^ +\d+ +(\S+:\d+) /mg;
	} @METHODS }, \%all, "$text: text");
	is_deeply({ map {
		my $name = $_;
		my @up = $metrics->body() =~ /^nginx_upstream_peer_up\{upstream="$name",(.*)\} 1$/mg;
		my $peers = 0;
		$peers += $_ for $metrics->body()
			=~ /^nginx_upstream_peers\{upstream="$name",.*\} (\d+)$/mg;
		$name => join ' ', $peers, map { /server="(.*?)"/ ? $1 : '' } @up;
	} @METHODS }, { map { $_ => join ' ', $n, $servers || () } @METHODS },
		"$text: metrics");

	# Listings, the numbers of servers in them, and a page.
	my @found;
	for my $name (@METHODS) {
		my $dynamic = control("/control?upstream=$name&verbose=")->body();
		my $conf = control("/conf?upstream=$name")->body();
		push @found, "$name: $dynamic"
			if join(' ', $dynamic =~ /^server (\S+) addr=/mg) ne $servers;
		push @found, "$name: $conf"
			if join(' ', $conf =~ /^server (\S+?);? /mg) ne $servers;
		push @found, "$name: peer $_"
			for grep { control("/control?upstream=$name&peer=$_&weight=1")
				->body() !~ /^bad peer id: / } $n, $n + 1, 63;
	}
	push @found, map { $_->body() =~ /^(.*0\.0\.0\.0.*)$/mg } $json, $lines,
		$metrics, control('/status?format=html');
	is_deeply(\@found, [], "$text: listings");
}

# What nginx says of the requests: as many tries as there are servers, and an
# address of one of these.
sub logged {
	my @peers = $t->grep_log(qr/get (?:\w+ )+peer, (?:try|number)/, $mark);
	my @tries = map { /try: (\d+)/ ? $1 : () } @peers;
	cmp_ok(scalar @tries, '>', 100, 'log: tries');
	is_deeply([ grep { $_ > 3 } @tries ], [], 'log: no more than servers');
	is_deeply([ $t->grep_log(qr/0\.0\.0\.0/, $mark) ], [],
		'log: no address of nobody');

	my @connects = $t->grep_log(qr/connect to /, $mark);
	is_deeply([ grep { $t->logical($_) !~ /connect to 127\.0\.0\.1:808\d, / }
		@connects ], [], 'log: connections');

	my %addresses = map { $_ => 1 } map { /^\S+ \d+ (\S+) / ? $1 : 'none' }
		split /^/, $t->logical($t->read_file('addr.log'));
	is_deeply([ sort keys %addresses ],
		[ (map { "127.0.0.1:$_" } 8081 .. 8084), sort @METHODS ],
		'log: addresses, and the names where nobody was left');
}
